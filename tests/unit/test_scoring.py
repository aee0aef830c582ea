"""Tests of rewards.scoring."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ScoringRule
from rewards.scoring import Scorer, brier, clipped_log, sabotage_bound, spherical

CLIP = 0.01
RULES = [rule for rule in ScoringRule if rule is not ScoringRule.UNCLIPPED_LOG]
GRID = np.linspace(0.0, 1.0, 1001)  # confidences and probabilities, a thousandth apart
UNIT = st.floats(0.0, 1.0)


def test_brier_is_the_negative_squared_distance() -> None:
    scores = brier([0.0, 0.0, 1.0, 1.0, 0.3, 0.3], [0, 1, 0, 1, 1, 0])

    assert scores == pytest.approx([0.0, -1.0, -1.0, 0.0, -0.49, -0.09])


def test_log_score_is_the_log_of_the_probability_given_to_what_happened() -> None:
    scores = clipped_log([0.5, 0.8, 0.8, 0.001, 1.0], [1, 1, 0, 1, 0], clip=0.05)

    assert scores == pytest.approx(np.log([0.5, 0.8, 0.2, 0.05, 0.05]))


def test_spherical_score_has_its_known_values() -> None:
    scores = spherical([0.0, 1.0, 0.5, 0.6], [1, 1, 0, 1])

    assert scores == pytest.approx([0.0, 1.0, math.sqrt(0.5), 0.6 / math.sqrt(0.52)])


@pytest.mark.parametrize("rule", RULES)
def test_the_expected_score_peaks_at_the_true_probability_and_nowhere_else(rule: ScoringRule) -> None:
    probabilities = GRID[(GRID >= CLIP) & (GRID <= 1 - CLIP)]
    scorer = Scorer(rule, CLIP)

    when_right, when_wrong = scorer(GRID, np.ones_like(GRID)), scorer(GRID, np.zeros_like(GRID))
    expected = probabilities[:, None] * when_right + (1 - probabilities[:, None]) * when_wrong  # [p, c]

    if rule is ScoringRule.LOG:  # confidences beyond the clip score like the clip itself
        expected[:, (GRID < CLIP) | (GRID > 1 - CLIP)] = -np.inf
    best = expected.max(axis=1, keepdims=True)
    assert np.allclose(GRID[expected.argmax(axis=1)], probabilities)
    assert ((expected > best - 1e-12).sum(axis=1) == 1).all()


@pytest.mark.parametrize("rule", [ScoringRule.BRIER, ScoringRule.SPHERICAL])
@pytest.mark.parametrize("probability", [0.0, 0.003, 0.997, 1.0])
def test_rules_without_a_clip_are_proper_up_to_certainty(rule: ScoringRule, probability: float) -> None:
    expected = Scorer(rule, CLIP)(GRID, np.full_like(GRID, probability))

    assert GRID[expected.argmax()] == pytest.approx(probability)


@pytest.mark.parametrize("rule", [ScoringRule.LOG, ScoringRule.SPHERICAL])
@given(confidence=UNIT, target=UNIT)
def test_a_fractional_target_is_scored_by_its_expectation(rule: ScoringRule, confidence: float, target: float) -> None:
    scorer = Scorer(rule, CLIP)

    expectation = target * scorer(confidence, 1.0) + (1 - target) * scorer(confidence, 0.0)

    assert scorer(confidence, target) == pytest.approx(expectation)


@given(confidence=UNIT, target=UNIT)
def test_brier_of_a_fractional_target_is_its_expectation_but_for_a_term_without_the_confidence(
    confidence: float, target: float
) -> None:
    expectation = target * brier(confidence, 1.0) + (1 - target) * brier(confidence, 0.0)

    assert brier(confidence, target) == pytest.approx(expectation + target * (1 - target), abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shares", [(0.2, 0.9), (0.0, 0.5)])
def test_of_a_random_share_the_best_confidence_is_its_mean(rule: ScoringRule, shares: tuple[float, float]) -> None:
    scores = sum(Scorer(rule, CLIP)(GRID, np.full_like(GRID, share)) for share in shares)

    assert GRID[np.argmax(scores)] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("rule", ScoringRule)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_honest_score_is_the_expected_one_of_stating_the_truth(rule: ScoringRule, probability: float) -> None:
    scorer, outcomes = Scorer(rule, CLIP), ((1.0, probability), (0.0, 1 - probability))

    expected = sum(chance * float(scorer(probability, outcome)) for outcome, chance in outcomes if chance)

    assert scorer.honest(probability) == pytest.approx(expected)


def test_the_unclipped_log_has_no_floor_and_no_safe_weight() -> None:
    scorer = Scorer(ScoringRule.UNCLIPPED_LOG, CLIP)

    assert scorer([1.0, 0.0, 0.3], [1.0, 0.0, 1.0]) == pytest.approx([0.0, 0.0, math.log(0.3)])
    assert scorer.range == (-math.inf, 0.0)
    assert sabotage_bound(ScoringRule.UNCLIPPED_LOG, CLIP) == math.inf


@pytest.mark.parametrize(
    ("rule", "lowest", "highest"),
    [
        (ScoringRule.BRIER, -1.0, 0.0),
        (ScoringRule.LOG, math.log(CLIP), math.log(1 - CLIP)),
        (ScoringRule.SPHERICAL, 0.0, 1.0),
    ],
)
def test_the_range_of_each_rule_is_known(rule: ScoringRule, lowest: float, highest: float) -> None:
    assert Scorer(rule, CLIP).range == pytest.approx((lowest, highest))


@pytest.mark.parametrize("rule", RULES)
@given(confidence=UNIT, target=UNIT)
def test_no_score_leaves_its_range(rule: ScoringRule, confidence: float, target: float) -> None:
    scorer = Scorer(rule, CLIP)

    assert scorer.range.lowest - 1e-12 <= scorer(confidence, target) <= scorer.range.highest + 1e-12


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_the_floor_is_reached_by_right_and_wrong_answers_to_the_last_bit(rule: ScoringRule, target: float) -> None:
    scorer = Scorer(rule, CLIP)

    assert scorer(GRID, np.full_like(GRID, target)).min() == scorer.range.lowest


@pytest.mark.parametrize(
    ("rule", "clip", "bound"),
    [
        (ScoringRule.BRIER, CLIP, 1.0),
        (ScoringRule.SPHERICAL, CLIP, 1.0),
        (ScoringRule.LOG, 0.05, 2.944),
        (ScoringRule.LOG, 0.01, 4.595),
    ],
)
def test_the_sabotage_bound_has_its_known_values(rule: ScoringRule, clip: float, bound: float) -> None:
    assert sabotage_bound(rule, clip) == pytest.approx(bound, abs=5e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("confidence", "target"), [(1.01, 1), (-0.1, 0), (math.nan, 1), (0.5, 2), (0.5, math.nan)])
def test_numbers_outside_the_unit_interval_are_refused(rule: ScoringRule, confidence: float, target: float) -> None:
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
        Scorer(rule, CLIP)(confidence, target)


@pytest.mark.parametrize("clip", [0.0, 0.5, -1.0, math.nan])
def test_a_clip_that_leaves_the_log_unbounded_or_constant_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match=r"0 < clip < 0\.5"):
        clipped_log(0.5, 1, clip)
