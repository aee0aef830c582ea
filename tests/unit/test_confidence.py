"""Tests of rewards.confidence: what is a stated confidence, on each scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfidenceScale, Response
from rewards.confidence import read_confidence
from rewards.parse import Malformed, parse

PERCENT = Response(confidence_scale=ConfidenceScale.PERCENT)
VERBAL = Response(confidence_scale=ConfidenceScale.VERBAL, confidence_words={"not sure": 0.2, "Quite sure": 0.8})
HOSTILE = ["", " ", "nan", "inf", "-0.5", "+0.5", "5e-1", ".5", "0.", "00.5", "0_5", "0,5", "1/2", "\u0660.\u0665"]


@pytest.mark.parametrize("scale", ConfidenceScale)
@pytest.mark.parametrize("step", [0.05, 0.01, 0.001])
def test_every_confidence_of_the_grid_is_read_as_what_it_stands_for(scale: ConfidenceScale, step: float) -> None:
    form = Response(confidence_scale=scale, confidence_step=step, confidence_off_grid=False)

    for stated, value in form.confidences.items():
        assert read_confidence(f"\n {stated}\t", form) == pytest.approx(value)


@pytest.mark.parametrize("content", [*HOSTILE, "1.5", "1.0000001", "85", "85%", "0.5.5", "0.5 0.6"])
def test_what_is_no_decimal_is_no_confidence(content: str) -> None:
    assert read_confidence(content, Response()) is None


@pytest.mark.parametrize("content", [*HOSTILE, "0.85", "85", "85 %", "101%", "100.1%", "-5%", "085%", "8.5.1%", "%"])
def test_what_is_no_percent_is_no_confidence(content: str) -> None:
    assert read_confidence(content, PERCENT) is None


@pytest.mark.parametrize(("content", "value"), [("0%", 0), ("100%", 1), ("62.5%", 0.625), ("7%", 0.07), ("100.0%", 1)])
def test_percents_are_hundredths(content: str, value: float) -> None:
    assert read_confidence(content, PERCENT) == value


@pytest.mark.parametrize(("content", "value"), [("not sure", 0.2), (" Not\n SURE ", 0.2), ("quite sure", 0.8)])
def test_words_are_read_whatever_their_case_and_spaces(content: str, value: float) -> None:
    assert read_confidence(content, VERBAL) == value


@pytest.mark.parametrize("content", [*HOSTILE, "sure", "not sure at all", "0.2", "not-sure"])
def test_other_words_are_no_confidence(content: str) -> None:
    assert read_confidence(content, VERBAL) is None


@pytest.mark.parametrize(
    ("content", "off_grid", "value"),
    [("0.62", True, 0.62), ("0.62", False, None), ("0.6", False, 0.6)],
)
def test_off_the_grid_is_malformed_where_the_recipe_says_so(content: str, off_grid: bool, value: float | None) -> None:
    form = Response(confidence_step=0.05, confidence_off_grid=off_grid)

    assert read_confidence(content, form) == value


@given(st.text())
def test_no_text_raises_and_none_is_read_as_other_than_a_share(content: str) -> None:
    for form in (Response(), PERCENT, VERBAL):
        value = read_confidence(content, form)
        assert value is None or (0 <= value <= 1 and not math.isnan(value))


def test_a_response_is_parsed_with_the_scale_of_its_form() -> None:
    text = "<think>so</think><answer>joy</answer><confidence>85%</confidence>"
    form = Response(reasoning_elements=(), confidence_scale=ConfidenceScale.PERCENT)

    assert parse(text, form, candidates=()).confidence == 0.85
    assert parse(text, Response(reasoning_elements=()), candidates=()).malformed is Malformed.BAD_CONFIDENCE
