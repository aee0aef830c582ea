"""What the scorer says; `python -m pytest` in this folder runs it."""

from __future__ import annotations

import pytest
from near import Near


@pytest.mark.parametrize(
    ("answer", "reference", "worth"),
    [("rain", "rain", 1.0), ("drizzle", "rain", 0.5), ("dry", "rain", 0.0), ("", "rain", 0.0), ("snow", "rain", 0.0)],
)
def test_an_answer_is_worth_as_much_as_it_is_near(answer: str, reference: str, worth: float) -> None:
    assert Near()(answer, reference) == worth
