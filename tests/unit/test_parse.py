"""Tests of rewards.parse."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Response
from rewards import parse as module
from rewards.parse import MAX_CHARACTERS, Malformed, ParsedResponse, parse, render

ELEMENTS = ("element", "human")
FORM = Response(reasoning_elements=ELEMENTS)
FREE = Response(reasoning_elements=())
CANDIDATES = ("joy", "Not sure", "fear")
PAIR = "<element>a sun</element><human>none</human>"
THINK = f"<think>{PAIR}</think>"
GOOD = THINK + "<answer>joy</answer><confidence>0.62</confidence>"
TAGS = [f"<{slash}{name}>" for name in ("think", "answer", "confidence", *ELEMENTS) for slash in ("", "/")]


def read(text: str, **settings: bool) -> ParsedResponse:
    return parse(text, FORM, candidates=CANDIDATES, **settings)


def visible_text() -> st.SearchStrategy[str]:
    near_tags = st.sampled_from(["<", "</", ">", "<b>", "<Think>", "</think", "élan"])
    pieces = st.one_of(st.text(max_size=8), near_tags)
    texts = st.lists(pieces, min_size=1, max_size=5).map("".join)
    return texts.filter(lambda text: any(c.isalnum() for c in text) and not any(tag in text for tag in TAGS))


def test_a_well_formed_response_is_read_with_its_spans() -> None:
    parsed = read(GOOD)

    assert parsed.malformed is None
    assert parsed.reasoning == PAIR
    assert (parsed.answer, parsed.confidence) == ("joy", 0.62)
    assert parsed.reasoning_span and parsed.answer_span and parsed.confidence_span
    assert GOOD[slice(*parsed.reasoning_span)] == parsed.reasoning
    assert GOOD[slice(*parsed.answer_span)] == "joy"
    assert GOOD[slice(*parsed.confidence_span)] == "0.62"


def test_ascii_white_space_may_stand_around_every_tag() -> None:
    spaced = " \n" + GOOD.replace("><", ">\r\n\t <").replace("0.62", "\n0.62 ") + "\f\v"

    parsed = read(spaced)

    assert (parsed.malformed, parsed.answer, parsed.confidence) == (None, "joy", 0.62)


@pytest.mark.parametrize("answer", ["not sure", " NOT\n  SURE "])
def test_an_answer_is_returned_as_the_candidate_is_spelt(answer: str) -> None:
    assert read(GOOD.replace("joy", answer)).answer == "Not sure"


def test_any_visible_answer_goes_where_there_are_no_candidates() -> None:
    parsed = parse(GOOD.replace("joy", " 42 <kg> "), FORM, candidates=())

    assert parsed.answer == "42 <kg>"


def test_the_reasoning_is_free_where_there_are_no_elements() -> None:
    text = "<think>so <element>…</element> it is</think><answer>joy</answer><confidence>1</confidence>"
    quoting = text.replace("so", "<answer>")

    assert parse(text, FREE, candidates=()).reasoning == "so <element>…</element> it is"
    assert parse(quoting, FREE, candidates=()).malformed is Malformed.REPEATED_TAG


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("<think>", "", Malformed.MISSING_TAG),
        ("<think>", "<Think>", Malformed.MISSING_TAG),
        ("<think>", "<think >", Malformed.MISSING_TAG),
        ("</answer>", "", Malformed.MISSING_TAG),
        ("<confidence>0.62</confidence>", "", Malformed.MISSING_TAG),
        ("</confidence>", "", Malformed.MISSING_TAG),
        ("<answer>", "<answer><answer>", Malformed.REPEATED_TAG),
        ("a sun", "<confidence>0.9</confidence>", Malformed.REPEATED_TAG),
        ("</confidence>", "</confidence><confidence>0.7</confidence>", Malformed.REPEATED_TAG),
        ("<human>none</human>", "", Malformed.MISSING_ELEMENT),
        ("</human>", "", Malformed.MISSING_ELEMENT),
        ("<human>none</human>", "<human>none</human>" * 2, Malformed.REPEATED_ELEMENT),
        ("a sun", "<human>", Malformed.REPEATED_ELEMENT),
        (PAIR, "<human>b</human><element>a</element>", Malformed.WRONG_ORDER),
        (PAIR, "<element>a<human>b</human></element>", Malformed.WRONG_ORDER),
        ("a sun</element><human>none</human>", "a<human>b</element>c</human>", Malformed.WRONG_ORDER),
        ("</think><answer>joy</answer>", "<answer>joy</answer></think>", Malformed.WRONG_ORDER),
        ("<think><element>", "<element><think>", Malformed.WRONG_ORDER),
        ("<think>", "well <think>", Malformed.TEXT_OUTSIDE_TAGS),
        ("<think>", "<<think>", Malformed.TEXT_OUTSIDE_TAGS),
        ("</element>", "</element> and ", Malformed.TEXT_OUTSIDE_TAGS),
        ("<answer>", "\u00a0<answer>", Malformed.TEXT_OUTSIDE_TAGS),
        ("</answer>", "</answer>.", Malformed.TEXT_OUTSIDE_TAGS),
        ("</confidence>", "</confidence>\x1c", Malformed.TEXT_OUTSIDE_TAGS),
        ("a sun", "", Malformed.EMPTY_ELEMENT),
        ("a sun", " \n\u00a0\u200b", Malformed.EMPTY_ELEMENT),
        ("joy", "", Malformed.EMPTY_ANSWER),
        ("joy", " \u200b", Malformed.EMPTY_ANSWER),
        ("joy", "joy!", Malformed.NOT_A_CANDIDATE),
        ("joy", "not joy", Malformed.NOT_A_CANDIDATE),
        ("joy", "j\u043ey", Malformed.NOT_A_CANDIDATE),  # a Cyrillic o
    ],
)
def test_a_malformed_response_says_why_and_nothing_else(old: str, new: str, cause: Malformed) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD

    assert read(text) == ParsedResponse(cause)


@pytest.mark.parametrize("number", ["0", "1", "0.0", "1.0", "0.5", "0.123456", "1.000000", " 0.62\n"])
def test_plain_decimals_between_0_and_1_are_confidences(number: str) -> None:
    assert read(GOOD.replace("0.62", number)).confidence == float(number)


SPACED = ["", " ", "0 .5", "\u00a00.5", "0.5\x1c", "\ufeff0.5"]
OUT_OF_RANGE = ["-0", "-0.1", "1.01", "2", "85", "1e-400", "nan", "inf"]
NOT_PLAIN = [".5", "0.", "1.", "00.5", "01", "+0.5", "5e-1", "0.8_5", "0x0", "0.1234567", "1.0000000"]
NO_NUMBER = ["85%", "0.8%", "0,7", "1/2", "{0.7}", "$0.7$", "0.7.", "high"]
OTHER_DIGITS = ["\u0660.\u0665", "0.\uff15", "0.\u096b"]  # Arabic, full-width, Devanagari


@pytest.mark.parametrize("number", SPACED + OUT_OF_RANGE + NOT_PLAIN + NO_NUMBER + OTHER_DIGITS)
def test_anything_else_is_no_confidence(number: str) -> None:
    assert read(GOOD.replace("0.62", number)).malformed is Malformed.BAD_CONFIDENCE


def test_a_confidence_may_be_absent_but_not_invalid_where_none_is_required() -> None:
    answer_only = THINK + "<answer>joy</answer>"

    absent = read(answer_only, require_confidence=False)
    assert (absent.malformed, absent.answer, absent.confidence) == (None, "joy", None)
    assert absent.confidence_span is None
    assert read(GOOD, require_confidence=False) == read(GOOD)

    invalid = answer_only + "<confidence>high</confidence>"
    assert read(invalid, require_confidence=False).malformed is Malformed.BAD_CONFIDENCE
    assert read(answer_only + "<confidence>", require_confidence=False).malformed is Malformed.MISSING_TAG


def test_a_truncated_response_is_malformed_whatever_its_text() -> None:
    assert read(GOOD, truncated=True) == ParsedResponse(Malformed.TRUNCATED)


def test_a_response_over_the_limit_is_refused_unread() -> None:
    filler = "a" * (MAX_CHARACTERS - len(GOOD) + len("a sun"))

    assert read(GOOD.replace("a sun", filler)).malformed is None
    assert read(GOOD.replace("a sun", filler + "a")).malformed is Malformed.TOO_LONG


@pytest.mark.parametrize("flood", ["<think>", "</think>", "<element></element>", GOOD])
def test_a_flood_of_tags_is_read_no_further_than_one_form(flood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    pattern = module._tag_pattern(ELEMENTS)

    class Counting:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            for match in pattern.finditer(text):
                seen.append(match[0])
                yield match

    monkeypatch.setattr(module, "_tag_pattern", lambda elements: Counting())

    cause = read(flood * 20_000).malformed

    assert cause in (Malformed.REPEATED_TAG, Malformed.REPEATED_ELEMENT, Malformed.TOO_LONG)
    assert len(seen) <= len(TAGS) + 1


@given(st.lists(st.one_of(st.sampled_from([*TAGS, "joy", "0.5", " ", "\ud800", "\x00"]), st.text()), max_size=30))
def test_no_text_makes_the_parser_raise(pieces: list[str]) -> None:
    parsed = read("".join(pieces))

    assert (parsed.malformed is None) == (parsed.answer is not None) == (parsed.confidence is not None)


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.sampled_from([*TAGS, "joy", "\n", "9", ""]))
def test_a_response_never_means_two_things(start: int, length: int, patch: str) -> None:
    text = GOOD[:start] + patch + GOOD[start + length :]

    parsed = read(text)

    if parsed.malformed is None:
        assert [text.count(tag) for tag in TAGS] == [1] * len(TAGS)
        assert parsed.answer_span and text[slice(*parsed.answer_span)].strip().casefold() == parsed.answer


@given(
    contents=st.tuples(visible_text(), visible_text()),
    answer=visible_text(),
    confidence=st.one_of(st.none(), st.integers(0, 100).map(lambda percent: f"{percent / 100:.2f}")),
)
def test_what_is_rendered_is_read_back(contents: tuple[str, str], answer: str, confidence: str | None) -> None:
    text = render(dict(zip(ELEMENTS, contents, strict=True)), answer, confidence)

    parsed = parse(text, FORM, candidates=(), require_confidence=confidence is not None)

    assert parsed.malformed is None
    assert parsed.reasoning == f"<element>{contents[0]}</element><human>{contents[1]}</human>"
    assert parsed.answer == answer.strip()
    assert parsed.confidence == (None if confidence is None else float(confidence))


def test_the_canonical_form_is_the_one_documented() -> None:
    assert render({"element": "a sun", "human": "none"}, "joy", "0.62") == GOOD
    assert render({}, "joy", None) == "<think></think><answer>joy</answer>"


@pytest.mark.parametrize(
    ("content", "answer", "confidence"),
    [
        ("", "joy", "0"),
        ("a</think>", "joy", "0"),
        ("a", "<answer>", "0"),
        ("a", " ", "0"),
        ("a", "joy", "85%"),
    ],
)
def test_what_could_not_be_read_back_is_not_rendered(content: str, answer: str, confidence: str) -> None:
    with pytest.raises(ValueError, match="malformed response"):
        render({"element": content}, answer, confidence)


@pytest.mark.parametrize("elements", [("think",), ("a", "a"), ("a b",), ("",), ("a>",), ("é",)])
def test_elements_that_cannot_be_tags_are_refused(elements: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="reasoning_elements"):
        parse(GOOD, Response(reasoning_elements=elements), candidates=())
