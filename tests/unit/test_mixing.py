"""Tests of rewards.mixing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from configs.schema import Baseline, Credit, Rewards, RewardWeights, ScoringRule
from rewards.mixing import (
    Floats,
    Mask,
    Severity,
    advantages,
    combine,
    confidence_advantages,
    confidence_values,
    sabotage_threshold,
    safety,
)
from rewards.scoring import Scorer, sabotage_bound

WEIGHTS = RewardWeights(correctness=2.0, calibration=3.0, format=0.5)
WELL_FORMED = np.array([True, True, False])


def some_parts() -> dict[str, Floats]:
    return {
        "correctness": np.array([1.0, 0.0, 0.0]),
        "calibration": np.array([-0.04, -0.25, -1.0]),
        "format": np.array([1.0, 1.0, 0.0]),
    }


def mix(correctness: float, calibration: float, **settings: object) -> Rewards:
    """One reward for the whole response, unless said otherwise."""
    weights = RewardWeights(correctness=correctness, calibration=calibration)
    return Rewards.model_validate({"weights": weights, "credit": Credit.JOINT, **settings})


def rewards_and_counted() -> st.SearchStrategy[tuple[Floats, Mask]]:
    return st.integers(1, 12).flatmap(
        lambda members: st.tuples(
            hnp.arrays(np.float64, members, elements=st.floats(-10, 10)), hnp.arrays(np.bool_, members)
        )
    )


def test_apart_answer_tokens_see_correctness_and_confidence_tokens_see_calibration() -> None:
    mixed = combine(some_parts(), WELL_FORMED, WEIGHTS, Credit.APART)

    assert mixed.answer == pytest.approx([2.5, 0.5, 0.0])
    assert mixed.confidence == pytest.approx([0.38, -0.25, -3.0])
    assert mixed.total == pytest.approx([2.38, -0.25, -3.0])
    assert (mixed.well_formed == WELL_FORMED).all()


def test_joint_every_token_sees_the_weighted_sum_that_is_logged() -> None:
    mixed = combine(some_parts(), WELL_FORMED, WEIGHTS, Credit.JOINT)

    assert mixed.total == pytest.approx([2.38, -0.25, -3.0])
    assert (mixed.answer == mixed.total).all()
    assert (mixed.confidence == mixed.total).all()


def test_apart_the_answer_reward_does_not_depend_on_calibration() -> None:
    sabotaged = some_parts() | {"calibration": np.zeros(3)}

    honest_mix = combine(some_parts(), WELL_FORMED, WEIGHTS, Credit.APART)
    sabotaged_mix = combine(sabotaged, WELL_FORMED, WEIGHTS, Credit.APART)

    assert (honest_mix.answer == sabotaged_mix.answer).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"brier": np.zeros(3)}, "got the parts"),
        ({"format": np.zeros(2)}, "one value of each"),
        ({"calibration": np.array([0.0, np.nan, 0.0])}, "finite"),
        ({"calibration": np.array([0.0, -np.inf, 0.0])}, "finite"),
    ],
)
def test_parts_that_would_poison_a_batch_are_refused(change: dict[str, Floats], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(some_parts() | change, WELL_FORMED, WEIGHTS, Credit.APART)


def test_a_missing_part_is_refused() -> None:
    parts = some_parts()
    del parts["format"]

    with pytest.raises(ValueError, match="got the parts"):
        combine(parts, WELL_FORMED, WEIGHTS, Credit.APART)


def test_the_mean_baseline_is_the_mean_of_the_counted_members() -> None:
    rewards, counted = np.array([1.0, 100.0, 0.0, 0.5]), np.array([True, False, True, True])

    assert advantages(rewards, Baseline.MEAN, counted) == pytest.approx([0.5, 0.0, -0.5, 0.0])


def test_leave_one_out_compares_a_member_with_the_others() -> None:
    rewards, counted = np.array([1.0, 100.0, 0.0, 0.5]), np.array([True, False, True, True])

    assert advantages(rewards, Baseline.LEAVE_ONE_OUT, counted) == pytest.approx([0.75, 0.0, -0.75, 0.0])


@given(rewards_and_counted())
def test_leave_one_out_is_each_reward_less_the_mean_of_the_others(drawn: tuple[Floats, Mask]) -> None:
    rewards, counted = drawn
    members = np.flatnonzero(counted)

    result = advantages(rewards, Baseline.LEAVE_ONE_OUT, counted)

    for member in members[: len(members) if len(members) > 1 else 0]:
        others = members[members != member]
        assert result[member] == pytest.approx(rewards[member] - rewards[others].mean(), abs=1e-9)


@pytest.mark.parametrize("baseline", Baseline)
@given(drawn=rewards_and_counted(), scale=st.floats(0.1, 10))
def test_advantages_sum_to_zero_and_scale_with_the_rewards(
    baseline: Baseline, drawn: tuple[Floats, Mask], scale: float
) -> None:
    rewards, counted = drawn

    result = advantages(rewards, baseline, counted)

    assert result.sum() == pytest.approx(0.0, abs=1e-9)
    assert (result[~counted] == 0).all()
    # Division by the standard deviation would undo the scale.
    assert advantages(scale * rewards, baseline, counted) == pytest.approx(scale * result, abs=1e-9)


@pytest.mark.parametrize("baseline", Baseline)
@given(reward=st.floats(-10, 10), members=st.integers(1, 9))
def test_equal_rewards_give_advantages_of_exactly_zero(baseline: Baseline, reward: float, members: int) -> None:
    result = advantages(np.full(members, reward), baseline, np.ones(members, dtype=np.bool_))

    assert (result == 0.0).all()


@pytest.mark.parametrize("baseline", Baseline)
@pytest.mark.parametrize("counted", [[False, False], [True, False]])
def test_a_member_alone_has_nothing_to_be_compared_with(baseline: Baseline, counted: list[bool]) -> None:
    assert (advantages(np.array([3.0, 1.0]), baseline, np.array(counted)) == 0).all()


def a_group() -> st.SearchStrategy[tuple[Floats, Floats, Mask]]:
    shares = st.floats(0, 1)
    return st.integers(1, 8).flatmap(
        lambda members: st.tuples(
            hnp.arrays(np.float64, members, elements=shares),
            hnp.arrays(np.float64, members, elements=st.sampled_from([0.0, 1.0])),
            hnp.arrays(np.bool_, members),
        )
    )


@pytest.mark.parametrize("rule", ScoringRule)
@given(drawn=a_group())
def test_a_confidence_is_held_against_the_other_confidences_on_its_own_outcome(
    rule: ScoringRule, drawn: tuple[Floats, Floats, Mask]
) -> None:
    confidence, correct, counted = drawn
    rewards = Rewards(scoring_rule=rule, baseline=Baseline.LEAVE_ONE_OUT)
    scorer, members = Scorer(rule, rewards.log_clip), np.flatnonzero(counted)

    result = confidence_advantages(confidence, correct, rewards, counted)

    for i in members[: len(members) if len(members) > 1 else 0]:
        others = [float(scorer(confidence[j], correct[i])) for j in members if j != i]
        assert result[i] == pytest.approx(float(scorer(confidence[i], correct[i])) - np.mean(others), abs=1e-9)
    assert (result[~counted] == 0).all()


@pytest.mark.parametrize("baseline", Baseline)
@given(stated=st.floats(0, 1), correct=hnp.arrays(np.float64, 5, elements=st.sampled_from([0.0, 1.0])))
def test_where_all_state_the_same_confidence_nothing_is_gained_by_luck(
    baseline: Baseline, stated: float, correct: Floats
) -> None:
    confidence, everyone = np.full(5, stated), np.ones(5, dtype=np.bool_)

    result = confidence_advantages(confidence, correct, Rewards(baseline=baseline), everyone)

    assert (result == 0.0).all()


def test_the_gradient_is_the_same_on_average_and_varies_less_than_with_the_mean_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    grid, scorer = np.linspace(0, 1, 21), Scorer(ScoringRule.BRIER, 0.01)
    policy = np.exp(-(((grid - 0.8) / 0.08) ** 2) / 2)  # as after some training: a narrow peak, beside the truth
    policy /= policy.sum()
    everyone, rewards = np.ones(8, dtype=np.bool_), Rewards(baseline=Baseline.LEAVE_ONE_OUT)
    gradients: dict[str, list[Floats]] = {"own outcome": [], "mean of scores": []}

    for _ in range(4000):
        drawn = rng.choice(21, 8, p=policy)
        confidence, correct = grid[drawn], (rng.uniform(size=8) < 0.7).astype(np.float64)
        scores = np.eye(21)[drawn] - policy  # d log p(drawn) / d logits, [8, 21]
        own = confidence_advantages(confidence, correct, rewards, everyone)
        plain = advantages(scorer(confidence, correct), Baseline.LEAVE_ONE_OUT, everyone)
        gradients["own outcome"].append(own @ scores / 8)
        gradients["mean of scores"].append(plain @ scores / 8)

    exact = policy * (scorer(grid, np.full(21, 0.7)) - policy @ scorer(grid, np.full(21, 0.7)))
    variance = {name: np.var(found, axis=0).sum() for name, found in gradients.items()}
    for name, found in gradients.items():
        assert np.abs(np.mean(found, axis=0) - exact).max() < 5 * np.sqrt(variance[name] / 4000)
    assert variance["own outcome"] < 0.5 * variance["mean of scores"]


@pytest.mark.parametrize("rule", ScoringRule)
@pytest.mark.parametrize("correct", [0.0, 0.3, 1.0])
def test_a_confidence_is_worth_its_score_and_its_form_more_than_a_malformed_response(
    rule: ScoringRule, correct: float
) -> None:
    grid, scorer = np.linspace(0, 1, 11), Scorer(rule, 0.01)

    values = confidence_values(grid, correct, WEIGHTS, Rewards(scoring_rule=rule))

    worst = 3.0 * scorer.range.lowest
    assert values + worst == pytest.approx(3.0 * scorer(grid, np.full(11, correct)) + 0.5)
    assert values.min() >= 0.5


@pytest.mark.parametrize("rule", ScoringRule)
def test_the_default_mix_is_safe_under_every_rule(rule: ScoringRule) -> None:
    assert safety(Rewards(scoring_rule=rule)) == []


@pytest.mark.parametrize("rule", ScoringRule)
@pytest.mark.parametrize(("relative", "severities"), [(0.99, ["unsafe"]), (1.0, ["note"]), (1.01, [])])
def test_joint_credit_is_safe_only_above_the_sabotage_bound(
    rule: ScoringRule, relative: float, severities: list[str]
) -> None:
    rewards = mix(relative * 2.0 * sabotage_bound(rule, 0.01), 2.0, scoring_rule=rule)

    assert [finding.severity for finding in safety(rewards)] == severities


@pytest.mark.parametrize("rule", ScoringRule)
def test_credit_apart_is_safe_below_the_sabotage_bound(rule: ScoringRule) -> None:
    rewards = mix(0.1, 5.0, scoring_rule=rule, credit=Credit.APART)

    assert safety(rewards) == []
    assert sabotage_threshold(rewards) == 0.0


@pytest.mark.parametrize(("correctness", "calibration"), [(1.0, 2.0), (0.3, 1.0), (0.99, 1.0)])
def test_the_threshold_under_brier_is_known_in_closed_form(correctness: float, calibration: float) -> None:
    threshold = sabotage_threshold(mix(correctness, calibration))

    assert threshold == pytest.approx(1 - correctness / calibration)


def test_the_mix_of_the_emocaliber_paper_pays_for_sabotage_below_0_849() -> None:
    rewards = mix(1.0, 2.0, scoring_rule=ScoringRule.LOG, log_clip=1e-6)

    (finding,) = safety(rewards)

    assert sabotage_threshold(rewards) == pytest.approx(0.849, abs=5e-4)
    assert finding.severity is Severity.UNSAFE
    assert "p = 0.849" in finding.message
    assert "rewards.credit" in finding.message


@pytest.mark.parametrize("rule", ScoringRule)
@pytest.mark.parametrize("correctness", [0.05, 0.3, 0.8])
def test_sabotage_pays_below_the_threshold_and_not_above(rule: ScoringRule, correctness: float) -> None:
    rewards = mix(correctness, 1.0, scoring_rule=rule)
    scorer = Scorer(rule, rewards.log_clip)
    confidences = np.linspace(0.0, 1.0, 2001)

    def best_honest(probability: float) -> float:
        return correctness * probability + float(scorer(confidences, np.full(2001, probability)).max())

    sabotage = float(scorer(0.0, 0.0))
    threshold = sabotage_threshold(rewards)
    assert 0 < threshold < 1
    assert best_honest(threshold - 0.01) < sabotage < best_honest(threshold + 0.005)


def test_without_correctness_sabotage_pays_at_every_probability() -> None:
    assert sabotage_threshold(mix(0.0, 1.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", ScoringRule)
@pytest.mark.parametrize("credit", Credit)
def test_without_a_weight_on_format_breaking_it_costs_nothing(rule: ScoringRule, credit: Credit) -> None:
    weights = RewardWeights(correctness=10.0, calibration=1.0, format=0.0)

    (finding,) = safety(Rewards(weights=weights, scoring_rule=rule, credit=credit))

    assert finding.severity is Severity.UNSAFE
    assert "rewards.weights.format" in finding.message


@pytest.mark.parametrize("credit", Credit)
def test_a_part_without_weight_is_noted(credit: Credit) -> None:
    (finding,) = safety(Rewards(weights=RewardWeights(calibration=0.0), credit=credit))

    assert finding.severity is Severity.NOTE
    assert "confidence is not trained" in finding.message


@given(
    weights=st.builds(RewardWeights, **dict.fromkeys(RewardWeights.model_fields, st.floats(0, 100))),
    rule=st.sampled_from(ScoringRule),
    credit=st.sampled_from(Credit),
)
def test_every_finding_has_two_sentences_and_names_a_setting(
    weights: RewardWeights, rule: ScoringRule, credit: Credit
) -> None:
    for finding in safety(Rewards(weights=weights, scoring_rule=rule, credit=credit)):
        assert finding.message.count(". ") == 1
        assert finding.message.endswith(".")
        assert "Set rewards." in finding.message
        assert re.search(r"\bp\b", finding.message)
