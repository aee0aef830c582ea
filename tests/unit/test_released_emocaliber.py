"""EmoCaliber's released reward, behaviour by behaviour: a comment's number is the behaviour's."""

from __future__ import annotations

import math
import re
import string
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.released.emocaliber import ELEMENTS, EmoCaliberReward, emocaliber_reward
from rewards.released.tags import first

PAIRS = [f"<{name}>…</{name}>" for name in ELEMENTS]
THINK = f"<think>{''.join(PAIRS)}</think>"
MALFORMED = {
    "format_score": 0,
    "confidence_score": -5,
    "correctness": 0,
    "brier_score": -1,
    "confidence": 1,
    "total": -5,
}


def said(answer: str = "joy", confidence: str = "0.8", think: str = THINK) -> str:
    return f"{think}<answer>{answer}</answer><confidence>{confidence}</confidence>"


def parts(found: EmoCaliberReward) -> dict[str, float]:
    return {name: getattr(found, name) for name in MALFORMED}


def right(text: str, label: str = "joy") -> bool | None:
    """Whether the answer counts as right; None: malformed."""
    found = emocaliber_reward(text, label)
    return bool(found.correctness) if found.well_formed else None


@pytest.mark.parametrize(
    "label, given_to_truth, correctness, brier, total",
    [("joy", 0.8, 1, -0.04, 2 + 2 * math.log(0.8)), ("awe", 0.2, 0, -0.64, 1 + 2 * math.log(0.2))],
)
def test_a_well_formed_response_has_the_published_reward(
    label: str, given_to_truth: float, correctness: float, brier: float, total: float
) -> None:
    found = emocaliber_reward(said(), label)

    assert found.well_formed
    assert parts(found) == pytest.approx(
        {
            "format_score": 1,
            "confidence_score": 2 * math.log(given_to_truth),
            "correctness": correctness,
            "brier_score": brier,
            "confidence": 0.8,
            "total": total,
        }
    )


def test_a_malformed_response_is_minus_five_with_full_confidence_even_where_its_answer_is_right() -> None:  # 1
    found = emocaliber_reward(said(confidence="1"), "joy")

    assert not found.well_formed
    assert parts(found) == MALFORMED


@pytest.mark.parametrize(
    "confidence, label, total",
    [
        ("0.9999999999999999", "awe", -72.5),
        ("5e-324", "joy", -1486.9),
        (repr(1 - math.exp(-3)), "awe", -5.0),
        ("0.9502", "awe", -4.9997),
        ("0.9503", "awe", -5.0035),
    ],
)
def test_the_reward_has_no_floor(confidence: str, label: str, total: float) -> None:  # 2
    assert emocaliber_reward(said(confidence=confidence), label).total == pytest.approx(total, rel=5e-4, abs=1e-4)
    assert 1 - math.exp(-3) == pytest.approx(0.950213, abs=1e-6)


NOT_INSIDE = ["0", "1", "1.0", "1e-400", "0.99999999999999999999", "nan", "inf", "-inf", "-0.1", "85", "85%"]  # 3
NO_NUMBER = ["{0.7}", "0.7.", "$0.7$", "0,7", "1/2", "", "high"]  # 4


@pytest.mark.parametrize("confidence", NOT_INSIDE + NO_NUMBER)
def test_what_is_no_number_between_0_and_1_is_malformed(confidence: str) -> None:  # 3, 4
    assert parts(emocaliber_reward(said(confidence=confidence), "joy")) == MALFORMED


@pytest.mark.parametrize(
    "confidence, value",
    [
        (".5", 0.5),
        ("5e-1", 0.5),
        ("+.5", 0.5),
        ("00.5", 0.5),
        ("0.8_5", 0.85),
        ("1_0e-2", 0.1),
        ("\u0660.\u0665", 0.5),  # Arabic
        ("\u0966.\u096b", 0.5),  # Devanagari
        ("\uff10.\uff15", 0.5),  # full width
        ("\n\u3000\u00a0\u2028\x1c\x1d0.5\x1e\x1f\t", 0.5),
    ],
)
def test_what_python_reads_as_a_number_is_one(confidence: str, value: float) -> None:  # 4
    assert emocaliber_reward(said(confidence=confidence), "joy").confidence == value


@pytest.mark.parametrize("order", [*permutations([THINK, "<answer>joy</answer>", "<confidence>0.8</confidence>"])])
def test_tags_may_stand_in_any_order_with_text_around_them(order: tuple[str, ...]) -> None:  # 5
    assert right("well, ".join(["", *order, ""])) is True


def test_tags_may_lie_inside_one_another() -> None:  # 5
    inside = f"<think>{''.join(PAIRS)}<answer>joy</answer><confidence>0.8</confidence></think>"
    around = f"<confidence>0.8</confidence><answer>{THINK}</answer>"

    assert right(inside) is True
    assert right(around) is False


@pytest.mark.parametrize(
    "text, correct, confidence",
    [
        (said(think=f"<think>like <answer>awe</answer>{''.join(PAIRS)}</think>"), 0, 0.8),
        (said(think=f"<think><confidence>0.3</confidence>{''.join(PAIRS)}</think>"), 1, 0.3),
        (said() + "<answer>awe</answer><confidence>0.3</confidence>", 1, 0.8),
        (said() + "<confidence>high</confidence>", 1, 0.8),
        (said(confidence="high") + "<confidence>0.8</confidence>", 0, 1),
    ],
)
def test_the_first_of_each_tag_counts_wherever_it_stands(text: str, correct: float, confidence: float) -> None:  # 6
    found = emocaliber_reward(text, "joy")

    assert (found.correctness, found.confidence) == (correct, confidence)


@pytest.mark.parametrize(
    "reasoning",
    [
        "".join(f"<{name}></{name}>" for name in ELEMENTS),
        "".join(PAIRS * 2),
        "so " + ", ".join(reversed(PAIRS)),
        "".join(f"<{name}>" for name in ELEMENTS) + "".join(f"</{name}>" for name in ELEMENTS),
        f"</element>{''.join(PAIRS)}<element>",
    ],
)
def test_elements_may_be_empty_repeated_nested_and_in_any_order(reasoning: str) -> None:  # 7
    assert right(said(think=f"<think>{reasoning}</think>")) is True


@pytest.mark.parametrize(
    "think",
    [
        *(THINK.replace(pair, "") for pair in PAIRS),
        THINK.replace("</element>", ""),
        THINK.replace(PAIRS[0], "</element><element>"),
        THINK.replace("<element>", "<Element>"),
        THINK.replace("<element>", "<element >"),
        THINK.replace("<element>", '<element id="1">'),
        THINK.replace("<think>", "<Think>"),
        "<think></think>" + THINK,
        "<think></think>" + "".join(PAIRS),
    ],
)
def test_the_first_think_must_hold_every_element_to_the_letter(think: str) -> None:  # 7
    assert right(said(think=think)) is None


def test_matching_knows_nothing_of_nesting() -> None:  # 8
    unclosed = emocaliber_reward(said("<answer>joy"), "joy")

    assert unclosed.well_formed and not unclosed.correctness
    assert right(said("<answer>joy"), "answerjoy") is True
    assert right(f"<think>{''.join(PAIRS)}{said(think='')}</think>") is True
    assert right(said(think=THINK.replace("…", "</think>", 1))) is None  # closes before the other elements


@pytest.mark.parametrize(
    "answer, label, correct",
    [
        ("j-o-y", "joy", True),
        ("j.o.y", "joy", True),
        (" _JOY_\n", "Joy", True),
        ("joy-love", "joy", False),
        ("joy-love", "joylove", True),
        ("1.0", "10", True),
        ("“joy”", "joy", False),
        ("joy\uff01", "joy", False),
        ("joy\u3002", "joy", False),
        ("j\u200boy", "joy", False),
        ("j\u043ey", "joy", False),  # a Cyrillic o
        ("self-pity", "self-pity", False),  # 10
        ("not sure", "not sure", False),
        ("joy", "joy ", False),
        ("joy.", "joy.", False),
        ("", "", False),
        ("caf\u00e9", "cafe\u0301", False),
        ("CAF\u00c9", "caf\u00e9", True),
        ("STRASSE", "straße", False),  # casefold would have them equal
        ("joy indeed", "joy", False),  # 11
        ("", "joy", False),
        (" ", "joy", False),
    ],
)
def test_an_answer_is_right_if_it_is_the_label_in_one_word(answer: str, label: str, correct: bool) -> None:  # 9, 10, 11
    assert right(said(answer), label) is correct


@pytest.mark.parametrize("text", [said(), "malformed"])
@pytest.mark.parametrize("label", [None, 3, ["joy"]])
def test_a_label_that_is_not_text_is_refused_whatever_the_response(text: str, label: object) -> None:  # 12
    with pytest.raises(TypeError, match="got a label of type"):
        emocaliber_reward(text, label)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, said().encode(), 0.8])
def test_a_response_that_is_not_text_is_a_type_error(text: object) -> None:  # 12
    with pytest.raises(TypeError, match="got a response of type"):
        emocaliber_reward(text, "joy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 200_000,  # quadratic in the released code: hours
        "<think>" + "<element>" * 200_000 + "</think>" + said(think=""),
        "<think></think>" * 200_000 + "<answer>" * 200_000,
    ],
)
def test_tags_that_are_never_closed_cost_no_more_than_others(text: str) -> None:  # 13
    assert right(text) is None


def test_spans_are_what_stands_between_the_tags_and_told_of_malformed_responses_too() -> None:
    text = "so " + said(" joy\n", " 0.8 ")
    found = emocaliber_reward(text, "joy")
    partial = emocaliber_reward("<answer>joy</answer><confidence>1", "joy")

    assert found.think_span and found.answer_span and found.confidence_span
    assert text[slice(*found.think_span)] == "".join(PAIRS)
    assert text[slice(*found.answer_span)] == " joy\n"
    assert text[slice(*found.confidence_span)] == " 0.8 "
    assert (partial.think_span, partial.answer_span, partial.confidence_span) == (None, (8, 11), None)


def test_a_recipe_with_other_elements_is_held_to_its_own() -> None:
    text = said(think="<think><word>dawn</word></think>")

    assert not emocaliber_reward(text, "joy").well_formed
    assert not emocaliber_reward(text, "joy", ("word", "root")).well_formed
    assert emocaliber_reward(text, "joy", ("word",)).total == pytest.approx(2 + 2 * math.log(0.8))
    assert emocaliber_reward(text, "joy", ()) == emocaliber_reward(text, "joy", ("word",))


# Against regular expressions

TAGS = [f"<{slash}{name}>" for name in ("think", "answer", "confidence", *ELEMENTS) for slash in ("", "/")]
TEXTS = ["joy", "Joy.", "0.7", "1_0e-2", "nan", "\u0660.\u0665", " ", "\x1c", "\n", "\u3000"]
SOUPS = st.lists(st.sampled_from([*TAGS, *PAIRS, "".join(PAIRS), THINK, *TEXTS]), max_size=25).map("".join)
SHORT = st.lists(st.sampled_from([*TEXTS, "<answer>", "</think>"]), max_size=3).map("".join)
THINKS = SHORT.map(lambda text: f"<think>{text}{''.join(PAIRS)}</think>")
NEARLY = st.builds(said, SHORT, SHORT, THINKS)


def by_regular_expressions(text: str, label: str) -> dict[str, float]:
    """The reward as its definition reads, one search for each tag."""
    found = [re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("think", "answer", "confidence")]
    if not all(found):
        return MALFORMED
    think, answer, confidence = (match[1] for match in found if match)
    if not all(re.search(f"<{name}>(.*?)</{name}>", think, re.DOTALL) for name in ELEMENTS):
        return MALFORMED
    words = "".join(c for c in answer if c not in string.punctuation).lower().split()
    i = int(words == [label])
    try:
        c = float(confidence.strip())
    except ValueError:
        return MALFORMED
    if not 0 < c < 1:
        return MALFORMED
    score = 2 * (i * math.log(c) + (1 - i) * math.log(1 - c))
    return dict(zip(MALFORMED, (1, score, i, -((c - i) ** 2), c, 1 + score + i), strict=True))


@given(SOUPS | NEARLY)
def test_every_text_has_the_reward_that_regular_expressions_give_it_to_the_last_bit(text: str) -> None:
    assert parts(emocaliber_reward(text, "joy")) == by_regular_expressions(text, "joy")


@given(SOUPS, st.sampled_from(["think", "answer", "element"]))
def test_the_first_content_is_the_one_a_regular_expression_finds(text: str, tag: str) -> None:
    match = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)

    assert first(text, tag) == (match.span(1) if match else None)
