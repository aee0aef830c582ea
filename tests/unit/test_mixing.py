"""Tests of rewards.mixing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from configs.schema import Baseline, Credit, Rewards, RewardWeights, ScoringRule
from rewards.mixing import (
    Floats,
    Mask,
    advantages,
    combine,
    confidence_advantages,
    confidence_values,
)
from rewards.scoring import Scorer

WEIGHTS = RewardWeights(correctness=2.0, calibration=3.0, format=0.5)
BOUNDED = [rule for rule in ScoringRule if rule is not ScoringRule.UNCLIPPED_LOG]
WELL_FORMED = np.array([True, True, False])


def some_parts() -> dict[str, Floats]:
    return {
        "correctness": np.array([1.0, 0.0, 0.0]),
        "calibration": np.array([-0.04, -0.25, -1.0]),
        "format": np.array([1.0, 1.0, 0.0]),
    }


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


@pytest.mark.parametrize("baseline, gained", [(Baseline.MEAN, 1.0), (Baseline.LEAVE_ONE_OUT, 4 / 3)])
def test_the_standard_deviation_divided_by_is_the_population_s_of_the_members_that_count(
    baseline: Baseline, gained: float
) -> None:
    rewards, counted = np.array([3.0, 100.0, 1.0, 1.0, 3.0]), np.array([True, False, True, True, True])

    found = advantages(rewards, baseline, counted, divide_by_std=True)

    # Mean 2, mean square of what is apart from it 1; a sample's standard deviation would be the root of 4 / 3.
    assert found * 1.0001 == pytest.approx([gained, 0.0, -gained, -gained, gained], rel=1e-9)


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


@pytest.mark.parametrize("rule", BOUNDED)
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


@pytest.mark.parametrize("rule", BOUNDED)
@pytest.mark.parametrize("correct", [0.0, 0.3, 1.0])
def test_a_confidence_is_worth_its_score_and_its_form_more_than_a_malformed_response(
    rule: ScoringRule, correct: float
) -> None:
    grid, scorer = np.linspace(0, 1, 11), Scorer(rule, 0.01)

    values = confidence_values(grid, correct, correct, WEIGHTS, Rewards(scoring_rule=rule))

    worst = 3.0 * scorer.range.lowest
    assert values + worst == pytest.approx(3.0 * scorer(grid, np.full(11, correct)) + 0.5)
    assert values.min() >= 0.5
    jointly = confidence_values(grid, correct, correct, WEIGHTS, Rewards(scoring_rule=rule, credit=Credit.JOINT))
    assert jointly == pytest.approx(values + WEIGHTS.correctness * correct)
