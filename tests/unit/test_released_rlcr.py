"""RLCR's released reward, behaviour by behaviour: a comment's number is the behaviour's."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.released.rlcr import Form, RlcrReward, hotpot_match, rlcr_reward
from rewards.released.tags import last

PATTERNS = {
    Form.TA: r".*?</think>\s*<answer>.*?</answer>\s*\Z",
    Form.TAC: r".*?</think>\s*<answer>.*?</answer>\s*<confidence>.*?</confidence>\s*\Z",
    Form.TABC: r".*?</think>\s*<answer>.*?</answer>\s*<analysis>.*?</analysis>\s*<confidence>.*?</confidence>\s*\Z",
    Form.TBAC: r".*?</think>\s*<analysis>.*?</analysis>\s*<answer>.*?</answer>\s*<confidence>.*?</confidence>\s*\Z",
}


def said(answer: str = "Paris", confidence: str = "0.8", space: str = "") -> str:
    """A response in the form `tac`."""
    return f"<think>so</think>{space}<answer>{answer}</answer>{space}<confidence>{confidence}</confidence>{space}"


def read(text: str, label: object = "Paris", form: str = Form.TAC) -> RlcrReward:
    return rlcr_reward(text, label, form)


@pytest.mark.parametrize("label, accuracy, brier", [("Paris", 1, 0.96), ("Rome", 0, 0.36)])
def test_a_well_formed_response_has_half_of_each_part(label: str, accuracy: float, brier: float) -> None:
    found = read(said(), label)

    assert (found.format, found.accuracy) == (1, accuracy)
    assert found.brier == pytest.approx(brier)
    assert found.total == pytest.approx(0.5 + accuracy / 2 + brier / 2)


@pytest.mark.parametrize(
    "form, text",
    [
        ("ta", "</think><answer>a</answer>"),
        ("tac", "</think><answer>a</answer><confidence>1</confidence>"),
        ("tabc", "</think><answer>a</answer><analysis></analysis><confidence>1</confidence>"),
        ("tbac", "</think><analysis></analysis><answer>a</answer><confidence>1</confidence>"),
    ],
)
def test_a_form_is_of_its_own_tags_in_their_order(form: str, text: str) -> None:
    others = [other for other in Form if other != form]

    assert read(text, form=form).format == 1
    assert [read(text, form=other).format for other in others] == [0, 0, 0]


def test_nan_passes_the_format_check_and_makes_the_brier_part_nan() -> None:  # 36
    found = read(said(confidence="nan"))

    assert (found.format, found.accuracy, found.mean_confidence, found.confidence_one_or_zero) == (1, 1, 0, 1)
    assert math.isnan(found.brier) and math.isnan(found.total)


@pytest.mark.parametrize(
    "confidence, value",
    [("0", 0), ("1", 1), (" 1.0\n", 1), ("-0.0", 0), ("0.8_5", 0.85), ("\u0660.\u0665", 0.5), ("\uff10.\uff15", 0.5)],
)
def test_0_and_1_and_whatever_python_reads_are_confidences(confidence: str, value: float) -> None:  # 37
    found = read(said(confidence=confidence))

    assert (found.format, found.mean_confidence) == (1, value)
    assert found.brier == pytest.approx(1 - (1 - value) ** 2)


@pytest.mark.parametrize("confidence", ["inf", "-inf", "85", "85%", "-0.1", "1.0000001", "{0.7}", "high", "", " "])
def test_other_confidences_are_malformed(confidence: str) -> None:  # 37
    assert read(said(confidence=confidence)).format == 0


@pytest.mark.parametrize(
    "text, well_formed",
    [
        (said().replace("<think>", ""), True),
        ("Well. " + said().replace("<think>", "</answer>"), True),
        (said().replace("</think>", ""), False),
        (said(space=" \n\u3000\u00a0\x1c"), True),
        (said(space="."), False),
        (said(space="\u200b"), False),
        (said() + "<|im_end|>", False),
        (said().replace("<answer>", "so <answer>"), False),
    ],
)
def test_text_may_stand_before_the_end_of_think_and_nowhere_else(text: str, well_formed: bool) -> None:  # 38
    assert read(text).format == well_formed


@pytest.mark.parametrize(
    "text, label, confidence",
    [
        ("</think><answer>a</answer> no wait <answer>b</answer><confidence>0.8</confidence>", "b", 0.8),
        ("<answer>a</answer><confidence>0.1</confidence>" + said("b"), "b", 0.8),
        (said("b", "0.3</confidence> or <confidence>0.8"), "b", 0.8),
        ("</think><answer>a</think><answer>b</answer><confidence>0.8</confidence>", "a</think><answer>b", 0.8),
    ],
)
def test_the_last_of_each_tag_counts(text: str, label: str, confidence: float) -> None:  # 39
    found = rlcr_reward(text, label, Form.TAC, matches=lambda answer, label: answer == label)

    assert (found.format, found.accuracy, found.mean_confidence) == (1, 1, confidence)


def test_a_first_tag_within_a_last_one_spoils_it() -> None:  # 39
    assert read(said(confidence="<confidence>0.8")).format == 0


@pytest.mark.parametrize("text", ["", "Paris", said(confidence="2"), said() + "."])
def test_malformed_is_0_in_every_part_and_so_never_below_a_well_formed_answer(text: str) -> None:  # 40
    found = read(text)

    assert (found.format, found.accuracy, found.brier, found.total) == (0, 0, 0, 0)
    assert read(said(confidence="1"), "Rome").total == 0.5  # the worst well-formed one


def test_labels_of_other_sources_are_judged_by_the_rule_that_is_given() -> None:  # 41
    assert rlcr_reward(said("42.0"), 42, Form.TAC, matches=lambda answer, label: float(answer) == label).accuracy == 1


def test_a_malformed_response_is_not_judged() -> None:  # 41
    assert rlcr_reward("42", 42, Form.TAC).accuracy == 0
    with pytest.raises(TypeError, match="got the label 42, expected text"):
        rlcr_reward(said("42"), 42, Form.TAC)


@pytest.mark.parametrize(
    "answer, label, same",
    [
        ("The  Eiffel-Tower!", "eiffeltower", True),
        ("a", "the", True),
        ("", "", True),
        ("an", "?", True),
        ("theatre", "atre", False),
        ("“the”", "“ ”", True),  # an article leaves a space
        ("a.m.", "am", True),
        ("Paris.", " paris\n", True),
        ("“Paris”", "Paris", False),
        ("in Paris", "Paris", False),
    ],
)
def test_hotpot_answers_are_compared_without_case_articles_and_punctuation(
    answer: str, label: str, same: bool
) -> None:  # 42
    assert hotpot_match(answer, label) is same
    assert read(said(answer), label).accuracy == same


@pytest.mark.parametrize(
    "confidence, mean, one_or_zero",
    [
        ("high", 0, 1),
        (" ", 0, 1),
        ("", 0, 0),
        ("85", 1, 1),
        ("-3", 0, 1),
        ("0.99", 0.99, 0),  # |0.99 - 1| is a little above 0.01
        ("0.991", 0.991, 1),
        ("0.01", 0.01, 0),
        ("0.009", 0.009, 1),
        ("0.5", 0.5, 0),
    ],
)
def test_the_monitored_confidence_does_not_ask_for_the_format(
    confidence: str, mean: float, one_or_zero: float
) -> None:  # 43
    found = read(f"<confidence>{confidence}</confidence> it is")

    assert found.format == 0
    assert (found.mean_confidence, found.confidence_one_or_zero) == (mean, one_or_zero)


def test_without_a_confidence_the_monitored_one_is_0_and_not_counted_as_0() -> None:  # 43
    found = read("</think><answer>a</answer>")

    assert (found.mean_confidence, found.confidence_one_or_zero, found.confidence_span) == (0, 0, None)


def test_ta_has_no_confidence() -> None:  # 44
    found = read("</think><answer>Paris</answer>", form="ta")

    assert (found.format, found.accuracy, found.brier, found.total) == (1, 1, 0, 1)


@pytest.mark.parametrize("confidence, brier", [("0.8", 0.96), ("3", -3), ("1e200", 0), ("high", 0), ("", 0)])
def test_ta_reads_a_confidence_in_the_reasoning_unchecked(confidence: str, brier: float) -> None:  # 44
    text = f"<confidence>{confidence}</confidence></think><answer>Paris</answer>"

    found = read(text, form="ta")

    assert found.format == 1
    assert found.brier == pytest.approx(brier)


def test_an_unknown_form_is_refused_with_those_there_are() -> None:  # 44
    with pytest.raises(ValueError, match="got the form 'cat', expected one of ta, tac, tabc, tbac"):
        read(said(), form="cat")


def test_a_response_that_is_not_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="got a response of type NoneType"):
        read(None)  # type: ignore[arg-type]


def test_spans_are_of_the_tags_that_count() -> None:
    text = said("a</answer><answer> b ", " 0.8")

    found = read(text)

    assert found.answer_span and found.confidence_span
    assert text[slice(*found.answer_span)] == " b "
    assert text[slice(*found.confidence_span)] == " 0.8"


@pytest.mark.parametrize(
    "text",
    [
        "</think>" * 200_000 + "<answer>" * 200_000 + "</confidence>",
        "</think><answer>" * 200_000 + "</answer><confidence>" * 200_000,
        "</think>" + " " * 200_000 + "</think>" + "\n" * 200_000 + "</answer></confidence>",
        "<answer></answer>" * 100_000 + "<confidence>" * 200_000,
    ],
)
def test_tags_that_are_never_closed_cost_no_more_than_others(text: str) -> None:
    assert read(text).format == 0


# Against regular expressions

TAGS = ["<think>", *(f"<{slash}{name}>" for name in ("answer", "analysis", "confidence") for slash in ("", "/"))]
SEAMS = ["</think><answer>", "</answer> <confidence>", "</answer>\n<analysis>", "</analysis><confidence>"]
PIECES = [*TAGS, "</think>", *SEAMS, "</think><analysis>", "</analysis><answer>", "a", "0.8", "\x1c", "\u3000"]
SOUPS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
INSIDE = st.one_of(st.sampled_from(["a", "0.8", ""]), SOUPS)


@st.composite
def nearly_formed(draw: st.DrawFn) -> str:
    order = draw(st.sampled_from([("answer", "confidence"), ("answer", "analysis", "confidence"), ("answer",)]))
    return draw(SOUPS) + "</think>" + "".join(f"<{tag}>{draw(INSIDE)}</{tag}>" for tag in order)


@given(SOUPS | nearly_formed(), st.sampled_from(list(Form)))
def test_a_text_has_a_form_where_its_pattern_matches_and_the_confidence_is_allowed(text: str, form: Form) -> None:
    confidences = re.findall("<confidence>(.*?)</confidence>", text, re.DOTALL)
    allowed = form is Form.TA or confidences[-1:] == ["0.8"]
    expected = bool(re.match(PATTERNS[form], text, re.DOTALL | re.MULTILINE)) and allowed

    assert rlcr_reward(text, "a", form).format == expected


@given(SOUPS)
def test_the_last_content_is_the_one_a_regular_expression_finds(text: str) -> None:
    matches = list(re.finditer("<answer>(.*?)</answer>", text, re.DOTALL))

    assert last(text, "answer") == (matches[-1].span(1) if matches else None)
