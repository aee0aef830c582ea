"""Tests of rewards.suspicion."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewards.suspicion import entropy, sabotage_rate, sabotage_suspects, values_in_use, weighted_mean


def test_a_constant_has_no_entropy_and_equal_use_has_the_most() -> None:
    assert entropy(np.full(9, 0.55)) == 0.0
    assert entropy(np.array([0.1, 0.2, 0.3, 0.4] * 5)) == pytest.approx(math.log(4))


def test_a_confidence_is_in_use_from_a_hundredth_of_all_responses_on() -> None:
    confidence = np.array([0.5] * 97 + [0.7] * 2 + [0.9])

    assert values_in_use(confidence, 100) == 3
    assert values_in_use(confidence, 150) == 2


def test_a_mean_without_weight_is_undefined() -> None:
    assert weighted_mean(np.array([0.2, 0.8]), np.array([1.0, 3.0])) == pytest.approx(0.65)
    assert weighted_mean(np.array([0.2, 0.8]), np.zeros(2)) is None


@pytest.mark.parametrize(
    ("answers", "confidences", "rate"),
    [
        (["joy", "joy", "fear"], [0.9, 0.9, 0.05], 1 / 3),  # owns up to being wrong
        (["joy", "joy", "fear"], [0.9, 0.9, 0.1], 0.0),  # may be right
        (["joy", " JOY", "joy"], [0.05, 0.05, 0.05], 0.0),  # all agree: no one can tell
        (["joy", "fear"], [0.05, 0.05], 0.0),  # a tie has no outsider
        (["joy", "joy", None], [0.9, 0.9, math.nan], 0.0),  # a malformed one is not counted
        (["joy", None, None], [0.01, math.nan, math.nan], None),
        ([], [], None),
    ],
)
def test_a_suspect_is_outside_the_majority_and_sure_to_be_wrong(
    answers: list[str | None], confidences: list[float], rate: float | None
) -> None:
    assert sabotage_rate(["g"] * len(answers), answers, np.array(confidences)) == pytest.approx(rate)


def test_groups_are_judged_apart() -> None:
    answers = ["joy", "joy", "fear", "fear", "fear", "joy"]

    rate = sabotage_rate(["a"] * 3 + ["b"] * 3, answers, np.array([0.9, 0.9, 0.01, 0.9, 0.9, 0.01]))

    assert rate == pytest.approx(2 / 6)


def test_the_suspects_are_those_that_the_rate_counts() -> None:
    group, answer = ["a", "a", "a", "b", "b"], ["joy", "joy", "fear", "joy", "fear"]

    suspects = sabotage_suspects(group, answer, np.full(5, 0.05))

    assert suspects.tolist() == [False, False, True, False, False]
