"""Tests of rewards.matching."""

from __future__ import annotations

import string
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Correctness
from rewards.matching import BUILT_IN, LONGEST_NUMBER, is_same_choice, is_same_number, read_letter, read_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        (" +12\n", 12),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("5.", 5),
        ("007", 7),
        ("1,234", 1234),
        ("1,234,567.89", 1234567.89),
        ("6.02e23", 6.02e23),
        ("1E-3", 1e-3),
        ("12%", 0.12),
        ("12.5 %", 0.125),
        ("-3/4", -0.75),
        ("10/5", 2),
    ],
)
def test_a_number_may_be_written_in_these_ways(text: str, number: float) -> None:
    assert read_number(text) == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", ".", "%", "twelve", "12 apples", "12kg", "$12", "x = 12", "1 2", "1_000", "0x10"),
        *("1,23", "1234,567", ",123", "1,,234", "1.2.3", "1,234.5,6", "--1", "+-1", "1e", "1e1.5", "e5"),
        *("1/0", "1/2/3", "1/-2", "1.5/2", "1/2%", "1%%", "50 percent"),
        *("nan", "inf", "-Infinity", "1e999", "1e999/1e999"),
        *("\N{ARABIC-INDIC DIGIT ONE}", "\N{FULLWIDTH DIGIT ONE}", "\N{MINUS SIGN}1", "\N{VULGAR FRACTION ONE HALF}"),
        "1" * (LONGEST_NUMBER + 1),
        "9" * 10 + "/" + "9" * 1_000_000,
    ],
)
def test_what_is_not_only_a_number_is_none(text: str) -> None:
    assert read_number(text) is None
    assert not is_same_number(text, "1")


@given(
    st.fractions(-(10**15), 10**15, max_denominator=10**6),
    st.sampled_from(["{:.12f}", "{:,.12f}", "{:.12e}", "{:+.12f}"]),
)
def test_a_printed_number_is_read_back(number: Fraction, form: str) -> None:
    assert read_number(form.format(float(number))) == pytest.approx(float(number), rel=1e-9, abs=1e-9)
    assert read_number(f"{number.numerator}/{number.denominator}") == pytest.approx(float(number), rel=1e-12)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("1/2", "50%", True),
        ("1,000", "1e3", True),
        ("0.333333", "1/3", True),  # off by 1e-6 of a third, and no more
        ("0.33333", "1/3", False),
        ("-2", "2", False),
        ("1e-9", "0", False),  # relative to 0 nothing else is near
        ("-0", "0.0", True),
    ],
)
def test_numbers_are_the_same_by_value_and_not_by_spelling(answer: str, reference: str, same: bool) -> None:
    assert is_same_number(answer, reference) is same


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b\n", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("b:", "B"),
        ("B)", "B"),
        ("B) joy", "B"),
        ("B: joy\nand more", "B"),
        ("(B) joy", "B"),
    ],
)
def test_a_choice_may_be_named_in_these_ways(text: str, letter: str) -> None:
    assert read_letter(text) == letter
    assert is_same_choice(text, "B) joy")
    assert not is_same_choice(text, "C")


@pytest.mark.parametrize(
    "text",
    ["", "joy", "A dog", "e.g. joy", "BB", "B or C", "(B", "1", "()", "\N{CYRILLIC CAPITAL LETTER VE}", "\u017f"],
)
def test_a_text_that_names_no_choice_is_wrong_whatever_the_reference(text: str) -> None:
    assert read_letter(text) is None
    assert not any(is_same_choice(text, letter) for letter in string.ascii_letters)


@pytest.mark.parametrize(("name", "reference"), [("numeric", "a dozen"), ("choice", "joy")])
def test_a_reference_of_the_wrong_kind_is_refused_and_not_a_wrong_answer(name: str, reference: str) -> None:
    with pytest.raises(ValueError, match=rf"got the reference '{reference}'.*rewards.correctness is {name}; mend"):
        BUILT_IN[name](reference, reference)


@given(answer=st.text(max_size=20), reference=st.sampled_from(["12", "B", "(c) 3"]), name=st.sampled_from(Correctness))
def test_no_answer_raises_and_every_verdict_is_0_or_1(answer: str, reference: str, name: Correctness) -> None:
    reads = {Correctness.NUMERIC: read_number, Correctness.CHOICE: read_letter}.get(name, str)
    if name is not Correctness.JUDGE and reads(reference) is not None:
        assert BUILT_IN[name](answer, reference) in (0, 1)


def test_every_word_for_correctness_has_a_matcher_but_the_judge() -> None:
    assert {*BUILT_IN, Correctness.JUDGE} == set(Correctness)
