"""Tests of rewards.outcomes, rewards.bins, rewards.metrics and rewards.tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from rewards.bins import (
    calibration_error,
    clustered_noise_floor,
    debiased_error,
    equal_mass_bins,
    equal_width_bins,
    noise_floor,
)
from rewards.metrics import Metrics, metrics
from rewards.outcomes import Outcomes
from rewards.tasks import MACRO, OVERALL, by_task, macro

STATED = st.integers(0, 100).map(lambda percent: percent / 100)
UNIT = st.floats(0, 1)
FEW = settings(max_examples=30, deadline=None)  # an example takes some milliseconds, more on a busy machine


def held(
    answer: Sequence[str | None],
    truth: Sequence[str],
    confidence: Sequence[float] | None = None,
    share: Sequence[float] | None = None,
    best_share: Sequence[float] | None = None,
    task: Sequence[str] | None = None,
) -> Outcomes:
    """Outcomes of as many prompts; numbers that are not given are unknown."""
    unknown = [math.nan] * len(answer)
    return Outcomes(
        prompt_id=[str(i) for i in range(len(answer))],
        task=task or ["emoji"] * len(answer),
        answer=answer,
        truth=truth,
        confidence=np.array(confidence or unknown, dtype=np.float64),
        share=np.array(share or unknown, dtype=np.float64),
        best_share=np.array(best_share or unknown, dtype=np.float64),
    )


def judged(confidence: NDArray[np.float64], share: NDArray[np.float64], seed: int = 0) -> Outcomes:
    """Outcomes of a model that always answers "yes", which annotators do with probability `share`."""
    yes = np.random.default_rng(seed).random(len(share)) < share
    return Outcomes(
        prompt_id=[str(i) for i in range(len(share))],
        task=["simulated"] * len(share),
        answer=["yes"] * len(share),
        truth=["yes" if y else "no" for y in yes],
        confidence=confidence,
        share=share,
        best_share=np.maximum(share, 1 - share),
    )


# Bins


def test_a_stated_tenth_lies_in_the_bin_it_opens_and_one_lies_in_the_last() -> None:
    tenths = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])

    assert equal_width_bins(tenths, 10).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_a_hundred_bins_give_every_stated_percent_its_own() -> None:
    percents = np.array([float(f"0.{percent:02d}") for percent in range(100)])

    assert equal_width_bins(percents, 100).tolist() == list(range(100))


def test_equal_mass_bins_hold_equal_numbers_where_nothing_ties() -> None:
    confidence = np.array([0.9, 0.1, 0.8, 0.2, 0.7, 0.3])

    assert equal_mass_bins(confidence, 3).tolist() == [2, 0, 2, 0, 1, 1]


@pytest.mark.parametrize("low, high", [(3, 2), (2, 3), (1, 1), (60, 40)])
def test_equal_mass_bins_keep_ties_together_and_values_apart(low: int, high: int) -> None:
    confidence = np.array([0.5] * low + [0.9] * high)

    assert equal_mass_bins(confidence, 2).tolist() == [0] * low + [1] * high


@FEW
@given(st.lists(STATED, min_size=1, max_size=60), st.integers(1, 15))
def test_the_order_of_responses_does_not_matter(values: list[float], bins: int) -> None:
    confidence = np.array(values)
    order = np.random.default_rng(len(values)).permutation(len(values))

    for binning in (equal_width_bins, equal_mass_bins):
        bin_of = binning(confidence, bins)
        assert ((bin_of >= 0) & (bin_of < bins)).all()
        assert (binning(confidence[order], bins) == bin_of[order]).all()
        assert (np.diff(bin_of[np.argsort(confidence, kind="stable")]) >= 0).all()


def test_a_tie_lies_in_the_bin_of_its_middle_rank() -> None:
    confidence = np.array([0.1] + [0.5] * 8 + [0.9])

    assert equal_mass_bins(confidence, 10).tolist() == [0] + [5] * 8 + [9]


# Calibration error


def test_ece_equals_its_value_by_hand() -> None:
    # bins of equal width:   [0, .1): 0, .05 | [.3, .4): .3, .35 | [.9, 1]: .9, .95, 1, 1
    confidence = np.array([0.0, 0.05, 0.3, 0.35, 0.9, 0.95, 1.0, 1.0])
    correct = np.array([False, False, True, False, True, True, False, True])

    ece = calibration_error(confidence, correct, equal_width_bins(confidence, 10))

    # |sum of c - y| by bin: .05, |.65 - 1| = .35, |3.85 - 3| = .85
    assert ece == pytest.approx((0.05 + 0.35 + 0.85) / 8)


def test_ece_mass_equals_its_value_by_hand() -> None:
    confidence = [0.6, 0.7, 0.8, 0.9]

    found = metrics(held(["a"] * 4, ["a", "b", "a", "a"], confidence), bins=2)

    assert found.ece_mass == pytest.approx((abs(1.3 - 1) + abs(1.7 - 2)) / 4)
    assert found.ece == pytest.approx(0.0)  # all in the upper half: 3.0 stated, 3 right


def test_always_certain_and_always_wrong_is_the_worst_error() -> None:
    found = metrics(held(["a"] * 5, ["b"] * 5, [1.0] * 5))

    assert found.ece == found.ece_mass == found.brier == 1.0


def test_the_debiased_error_equals_its_value_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.2, 0.3])
    correct = np.array([True, False, False, False, False, True])

    error = debiased_error(confidence, correct, equal_width_bins(confidence, 2))

    # squared gaps .65^2 and .25^2, of which (1/4 3/4) / 3 and (1/2 1/2) / 1 are chance
    assert error == pytest.approx(math.sqrt((4 * (0.65**2 - 0.0625) + 2 * (0.25**2 - 0.25)) / 6))


def test_an_error_that_chance_explains_is_none_once_debiased() -> None:
    confidence, correct = np.full(4, 0.6), np.array([True, True, True, False])

    assert debiased_error(confidence, correct, equal_width_bins(confidence, 10)) == 0.0


def test_a_bin_of_one_outcome_cannot_be_debiased() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.1]), np.array([True, False, True])
    bin_of = equal_width_bins(confidence, 10)

    assert debiased_error(confidence, correct, bin_of) == debiased_error(confidence[:2], correct[:2], bin_of[:2])
    assert debiased_error(confidence[:1], correct[:1], bin_of[:1]) is None


def test_the_debiased_error_of_many_is_the_gap_there_is() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.integers(3, 19, 20_000) / 20

    for gap in (0.0, 0.1):
        correct = rng.random(20_000) < confidence - gap
        error = debiased_error(confidence, correct, equal_mass_bins(confidence, 10))
        assert error == pytest.approx(gap, abs=0.006)


def test_certain_confidences_have_no_noise_floor() -> None:
    confidence = np.array([0.0, 1.0, 1.0])

    assert noise_floor(confidence, equal_width_bins(confidence, 10)) == 0.0


def test_noise_floor_of_one_stated_value_is_the_mean_deviation_of_a_binomial() -> None:
    n, stated = 100, 0.5
    confidence = np.full(n, stated)
    exact = sum(math.comb(n, k) * 0.5**n * abs(k / n - stated) for k in range(n + 1))

    floor = noise_floor(confidence, equal_width_bins(confidence, 10), simulations=4000)

    assert floor == pytest.approx(exact, rel=0.04)


def test_noise_floor_at_two_thousand_is_about_two_and_a_half_points() -> None:
    confidence = np.random.default_rng(1).random(2000)

    floor = noise_floor(confidence, equal_width_bins(confidence, 10))

    assert 0.02 < floor < 0.03


@pytest.mark.parametrize(("prompts", "draws"), [(200, 20), (500, 4)])
def test_the_noise_floor_of_annotators_who_share_responses_is_what_calibrated_ones_show(
    prompts: int, draws: int
) -> None:
    rng, errors, floors = np.random.default_rng(4), [], []
    for _ in range(20):
        stated = rng.integers(1, 10, prompts) / 10
        share = rng.beta(3 * stated, 3 * (1 - stated))  # the right share on average, not of each prompt
        confidence, prompt = np.repeat(stated, draws), np.repeat(np.arange(prompts), draws)
        correct = rng.random(prompts * draws) < np.repeat(share, draws)
        bin_of = equal_width_bins(confidence, 10)
        errors.append(calibration_error(confidence, correct, bin_of))
        floors.append(clustered_noise_floor(confidence, correct, bin_of, prompt))

    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.12)
    assert np.mean(floors) > 1.2 * noise_floor(confidence, bin_of)


def test_the_noise_floor_of_two_pairs_equals_its_value_by_hand() -> None:
    confidence, correct = np.full(4, 0.5), np.array([True, True, False, False])

    floor = clustered_noise_floor(confidence, correct, np.zeros(4, np.intp), np.array([0, 0, 1, 1]), simulations=4000)

    # one pair is 1 too low and one 1 too high, which is half of the variance: 0 or twice the root of 2, by two signs
    assert floor == pytest.approx(math.sqrt(2) / 4, rel=0.04)


def test_of_a_bin_with_one_prompt_all_may_be_chance() -> None:
    confidence, correct = np.full(4, 0.9), np.array([True, False, False, False])
    bin_of = equal_width_bins(confidence, 10)

    floor = clustered_noise_floor(confidence, correct, bin_of, np.zeros(4, np.intp))

    assert floor == pytest.approx(calibration_error(confidence, correct, bin_of))


def test_what_a_model_is_off_everywhere_is_no_noise() -> None:
    confidence, correct = np.full(400, 0.9), np.tile([True, False], 200)

    floor = clustered_noise_floor(confidence, correct, equal_width_bins(confidence, 10), np.repeat(np.arange(100), 4))

    assert floor == pytest.approx(0.0)


def test_the_noise_floor_takes_prompts_for_the_same_by_task_and_id() -> None:
    confidence = np.repeat(np.random.default_rng(1).random(100), 2)
    outcomes = judged(confidence, np.repeat([0.0, 1.0], 100))
    pairs = replace(outcomes, prompt_id=[str(i // 2) for i in range(200)])
    apart = replace(pairs, task=["a", "b"] * 100)

    found = [metrics(one).ece_noise_floor for one in (outcomes, pairs, apart)]

    assert found[0] == found[2] != found[1]


def test_the_noise_floor_reported_is_that_of_equal_width_bins() -> None:
    confidence = 0.9 + np.random.default_rng(1).random(500) / 20

    found = metrics(judged(confidence, confidence))

    assert found.ece_noise_floor == noise_floor(confidence, equal_width_bins(confidence, 10))
    assert found.ece_noise_floor != noise_floor(confidence, equal_mass_bins(confidence, 10))


def test_noise_floor_is_the_same_for_the_same_seed() -> None:
    confidence = np.random.default_rng(1).random(50)
    bin_of = equal_width_bins(confidence, 10)

    assert noise_floor(confidence, bin_of, seed=3) == noise_floor(confidence, bin_of, seed=3)
    assert noise_floor(confidence, bin_of, seed=3) != noise_floor(confidence, bin_of, seed=4)


# Answers


def test_a_malformed_response_is_a_wrong_answer() -> None:
    found = metrics(held(["a", None, "a", "b"], ["a", "a", "a", "b"]))

    assert found.accuracy == 0.75
    assert found.malformed == 0.25
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)


def test_weighted_f1_equals_its_value_by_hand() -> None:
    found = metrics(held(["a", "a", "b", "z"], ["a", "b", "b", "b"]))

    f1_a = 2 * 1 / (2 * 1 + 1 + 0)  # one hit, one false alarm, no miss
    f1_b = 2 * 1 / (2 * 1 + 0 + 2)  # one hit, no false alarm, two misses
    assert found.weighted_f1 == pytest.approx(0.25 * f1_a + 0.75 * f1_b)


@FEW
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    answers, truths = [a for a, _ in pairs], [t for _, t in pairs]

    found = metrics(held(answers, truths))

    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truths, answers))


def test_case_and_white_space_do_not_make_an_answer_wrong() -> None:
    found = metrics(held(["Not  Sure", "joy"], ["not sure", "Joy"]))

    assert found.accuracy == found.balanced_accuracy == found.weighted_f1 == 1.0


# Calibration


def test_brier_and_log_loss_equal_their_values_by_hand() -> None:
    found = metrics(held(["a", "a", "a"], ["a", "b", "b"], [0.8, 0.3, 1.0]))

    assert found.brier == pytest.approx((0.04 + 0.09 + 1.0) / 3)
    assert found.constant_brier == pytest.approx(1 / 3 * 2 / 3)
    assert found.log_loss_clip == 0.01
    assert found.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.7) + math.log(0.01)) / 3)


def test_what_other_files_compute_stands_under_its_own_name() -> None:
    # of ten: two at .9, both right; six at .5, four of them right; two at .1, both wrong
    right = ["a", "a", "a", "a", "a", "a", "b", "b", "b", "b"]
    found = metrics(held(["a"] * 10, right, [0.9, 0.9] + [0.5] * 6 + [0.1] * 2), bins=5)

    assert found.reliability == pytest.approx((2 * 0.1**2 + 6 * (1 / 6) ** 2 + 2 * 0.1**2) / 10)
    assert found.resolution == pytest.approx((2 * 0.4**2 + 6 * (1 / 15) ** 2 + 2 * 0.6**2) / 10)
    assert found.uncertainty == found.constant_brier == pytest.approx(0.24)
    at_five_tenths = [2 / 6 * kept / (2 + kept) for kept in range(1, 7)]
    assert found.aurc == pytest.approx((sum(at_five_tenths) + 3 / 9 + 4 / 10) / 10)
    assert found.excess_aurc == pytest.approx(found.aurc - (1 / 7 + 2 / 8 + 3 / 9 + 4 / 10) / 10)
    assert (found.coverage_at_risk_5, found.coverage_at_risk_10, found.coverage_at_risk_20) == (0.2, 0.2, 0.2)
    assert found.ece_debiased == 0.0
    assert found.smooth_ece is not None and 0.05 < found.smooth_ece <= 0.14


def test_each_risk_has_its_own_coverage() -> None:
    right = [True] * 30 + [True, False] * 3 + [False] * 2 + [True] * 2 + [False] * 10
    confidence = [0.9] * 30 + [0.8] * 6 + [0.7] * 4 + [0.1] * 10  # 0 of 30, 3 of 36, 5 of 40, 15 of 50 wrong

    found = metrics(held(["a"] * 50, ["a" if one else "b" for one in right], confidence))

    coverages = (found.coverage_at_risk_5, found.coverage_at_risk_10, found.coverage_at_risk_20)
    assert coverages == pytest.approx((30 / 50, 36 / 50, 40 / 50))


def test_auroc_is_the_share_of_right_and_wrong_pairs_in_order() -> None:
    found = metrics(held(["a"] * 5, ["a", "a", "b", "b", "b"], [0.9, 0.4, 0.1, 0.4, 0.6]))

    assert found.auroc == pytest.approx((3 + 1 + 0.5) / 6)  # a tie counts half


@pytest.mark.parametrize("truth", ["a", "b"])
def test_one_class_has_a_brier_score_and_a_log_loss_but_no_auroc(truth: str) -> None:
    found = metrics(held(["a", "a"], [truth, truth], [0.5, 0.7]))

    right = truth == "a"
    assert found.auroc is None
    assert found.brier == pytest.approx((0.25 + (0.09 if right else 0.49)) / 2)
    assert found.log_loss == pytest.approx(-(math.log(0.5) + math.log(0.7 if right else 0.3)) / 2)


def test_calibration_is_measured_over_readable_confidences_and_says_how_many() -> None:
    found = metrics(held(["a", None, "a"], ["a", "a", "b"], [0.8, math.nan, 0.2]))

    assert (found.n, found.n_confident) == (3, 2)
    assert found.mean_confidence == pytest.approx(0.5)
    assert found.brier == pytest.approx(0.04)
    assert found.constant_brier == pytest.approx(0.25)


def test_without_confidences_calibration_is_undefined_and_accuracy_is_not() -> None:
    found = metrics(held(["a", "b"], ["a", "a"], share=[0.7, 0.3], best_share=[0.7, 0.7]))

    assert found.accuracy == 0.5
    assert found.best_accuracy == pytest.approx(0.7)
    for name in ("mean_confidence", "distinct_confidences", "ece", "ece_mass", "ece_noise_floor", "brier"):
        assert getattr(found, name) is None
    for name in ("log_loss", "auroc", "constant_brier", "best_brier", "excess_brier", "brier_expected"):
        assert getattr(found, name) is None
    for name in ("ece_debiased", "smooth_ece", "reliability", "resolution", "uncertainty", "aurc", "excess_aurc"):
        assert getattr(found, name) is None


def test_a_confidence_is_distinct_when_one_percent_of_all_responses_state_it() -> None:
    confidence = [0.5] * 95 + [0.9, 0.9] + [0.301, 0.299] + [0.1] + [math.nan] * 100
    answers = ["a"] * 100 + [None] * 100

    found = metrics(held(answers, ["a"] * 200, confidence))

    assert found.distinct_confidences == 3  # .5, .9 and .30; .1 is stated once in 200


# Annotators


def test_what_annotators_allow_equals_its_value_by_hand() -> None:
    found = metrics(
        held(
            ["a", "b", None],
            ["a", "a", "a"],
            confidence=[0.9, 0.1, math.nan],
            share=[0.8, 0.2, 0.0],
            best_share=[0.8, 0.8, 0.6],
        )
    )

    assert found.n_counted == 3
    assert found.best_accuracy == pytest.approx((0.8 + 0.8 + 0.6) / 3)
    assert found.accuracy_expected == pytest.approx((0.8 + 0.2 + 0.0) / 3)
    assert found.majority_brier == pytest.approx((0.16 + 0.16 + 0.24) / 3)
    assert found.best_brier == pytest.approx(0.16)
    assert found.excess_brier == pytest.approx(0.01)
    assert found.brier_expected == pytest.approx((0.8 * 0.01 + 0.2 * 0.81 + 0.2 * 0.81 + 0.8 * 0.01) / 2)
    assert found.confidence_share_rank_correlation == pytest.approx(1.0)


def test_answers_and_confidences_are_held_against_the_majority() -> None:
    found = metrics(
        held(
            ["a", "b", "b", None, "a"],
            ["b", "b", "b", "b", "b"],  # the annotators drawn say nothing of it
            confidence=[0.9, 0.9, 0.1, math.nan, 0.5],
            share=[0.7, 0.3, 0.1, 0.0, 0.5],
            best_share=[0.7, 0.7, 0.9, 0.7, 0.5],
        )
    )

    assert found.majority_accuracy == pytest.approx(2 / 5)  # a tie counts, a malformed response does not
    assert found.majority_auroc == pytest.approx((0.5 + 1 + 0 + 1) / 4)  # pairs of a 0.9 and a 0.5 with a 0.9 and a 0.1


def test_confidences_tell_no_majority_from_others_where_all_answers_are_alike() -> None:
    found = metrics(held(["a", "b"], ["a", "a"], [0.9, 0.5], share=[0.7, 0.6], best_share=[0.7, 0.6]))

    assert found.majority_accuracy == 1
    assert found.majority_auroc is None


def test_outcomes_without_votes_are_left_out_of_what_votes_say() -> None:
    found = metrics(held(["a", "a"], ["a", "a"], [0.5, 0.9], share=[math.nan, 0.7], best_share=[math.nan, 0.7]))

    assert (found.n, found.n_counted) == (2, 1)
    assert found.accuracy_expected == found.best_accuracy == pytest.approx(0.7)
    assert found.excess_brier == pytest.approx(0.04)


def test_without_votes_what_they_say_is_undefined() -> None:
    found = metrics(held(["a"], ["a"], [0.9]))

    assert found.n_counted == 0
    assert found.best_accuracy is found.accuracy_expected is found.majority_brier is None
    assert found.majority_accuracy is found.majority_auroc is None
    assert found.best_brier is found.excess_brier is found.brier_expected is None
    assert found.confidence_share_rank_correlation is None


@FEW
@given(st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=40))
def test_expected_brier_is_the_best_plus_the_excess(pairs: list[tuple[float, float]]) -> None:
    confidence, share = np.array(pairs).T

    found = metrics(judged(confidence, share))

    assert found.brier_expected is not None and found.best_brier is not None
    assert found.excess_brier is not None
    assert found.brier_expected == pytest.approx(found.best_brier + found.excess_brier, abs=1e-12)


def test_rank_correlation_follows_ranks_and_not_distances() -> None:
    share = np.array([0.1, 0.2, 0.9, 0.95])

    assert metrics(judged(share**3, share)).confidence_share_rank_correlation == pytest.approx(1.0)
    assert metrics(judged(1 - share, share)).confidence_share_rank_correlation == pytest.approx(-1.0)


# The failures that must be seen


def test_a_perfectly_calibrated_model_is_at_the_noise_floor_without_excess() -> None:
    share = np.random.default_rng(5).integers(1, 20, 4000) / 20

    found = metrics(judged(share, share))

    assert found.excess_brier == 0.0
    assert found.ece is not None and found.ece_noise_floor is not None
    assert found.ece < 1.6 * found.ece_noise_floor
    assert found.brier == pytest.approx(found.best_brier, abs=0.01)
    assert found.distinct_confidences == 19
    assert found.confidence_share_rank_correlation == pytest.approx(1.0)


def test_the_constant_at_the_base_rate_looks_calibrated_and_is_found_out() -> None:
    share = np.random.default_rng(5).integers(1, 20, 4000) / 20
    constant = np.full(4000, share.mean())

    found = metrics(judged(constant, share))

    assert found.ece is not None and found.ece < 0.03
    assert found.distinct_confidences == 1
    assert found.confidence_share_rank_correlation is None
    assert found.auroc == 0.5
    assert found.excess_brier == pytest.approx(share.var())
    assert found.brier == pytest.approx(found.constant_brier, abs=0.001)


def test_sabotage_has_a_superb_brier_score_and_no_accuracy() -> None:
    share = np.full(1000, 0.02)

    found = metrics(judged(np.zeros(1000), share))

    assert found.brier is not None and found.brier < 0.05
    assert found.accuracy is not None and found.accuracy < 0.05
    assert found.best_accuracy == pytest.approx(0.98)


def test_overconfidence_is_far_above_the_noise_floor() -> None:
    share = np.full(1000, 0.6)

    found = metrics(judged(np.full(1000, 0.95), share))

    assert found.ece == pytest.approx(0.35, abs=0.05)
    assert found.ece_noise_floor is not None and found.ece_noise_floor < 0.02


# Shape


def test_metrics_come_by_task_and_overall() -> None:
    outcomes = held(["a", "b", "a"], ["a", "a", "a"], [0.9, 0.2, 0.7], task=["x", "y", "x"])

    found = by_task(outcomes, bins=5)

    assert list(found) == ["x", "y", MACRO, OVERALL]
    assert [found[name].n for name in found] == [2, 1, 3, 3]
    assert found[MACRO] == macro([found["x"], found["y"]])
    assert found["x"] == metrics(held(["a", "a"], ["a", "a"], [0.9, 0.7]), bins=5)
    assert found["y"].accuracy == 0.0
    assert found[OVERALL] == metrics(outcomes, bins=5)


def test_a_task_alone_has_no_macro_average() -> None:
    assert list(by_task(held(["a", "a"], ["a", "b"]))) == ["emoji", OVERALL]


def test_a_macro_average_weighs_tasks_alike_and_adds_up_their_sizes() -> None:
    large = metrics(held(["a"] * 4, ["a", "a", "a", "b"], [0.9, 0.8, 0.7, 0.6], [0.5] * 4, [0.5] * 4), bins=5)
    small = metrics(held(["a", "a"], ["a", "b"], [0.5, 0.1]), bins=5)

    found = macro([large, small])

    assert (found.n, found.n_confident, found.n_counted) == (6, 6, 4)
    assert found.accuracy == pytest.approx((0.75 + 0.5) / 2)
    assert found.mean_confidence == pytest.approx((0.75 + 0.3) / 2)
    assert (found.ece_bins, found.log_loss_clip) == (5, 0.01)
    assert found.distinct_confidences is None


def test_what_one_task_does_not_define_has_no_macro_average() -> None:
    both, one_class = metrics(held(["a", "a"], ["a", "b"], [0.5, 0.1])), metrics(held(["a"], ["a"], [0.5]))

    found = macro([both, one_class])

    assert both.auroc is not None
    assert found.auroc is None
    assert found.brier is not None


@pytest.mark.parametrize("name", [MACRO, OVERALL, "ID VSA"])
def test_a_task_may_not_take_the_name_of_the_whole(name: str) -> None:
    with pytest.raises(ValueError, match=f'task named "{name}".*rename the task'):
        by_task(held(["a"], ["a"], task=[name]))


def test_groups_of_vecbench_are_pooled_over_those_of_their_tasks_that_there_are() -> None:
    answers, tasks = ["a", "a", None, "a", "a"], ["FI-2", "x", "WebEmo-2", "Artphoto-8", "WebEmo-2"]
    outcomes = held(answers, ["a"] * 5, [0.9, 0.8, math.nan, 0.7, 0.6], task=tasks)

    found = by_task(outcomes, bins=5)

    assert list(found) == ["FI-2", "x", "WebEmo-2", "Artphoto-8", "ID VSA", "OOD VER", MACRO, OVERALL]
    assert found["ID VSA"] == metrics(held(["a", None, "a"], ["a"] * 3, [0.9, math.nan, 0.6]), bins=5)
    assert found["ID VSA"].accuracy == pytest.approx(2 / 3)  # the malformed one is a wrong one
    assert found["OOD VER"] == found["Artphoto-8"]


def test_nothing_is_known_of_no_outcomes() -> None:
    assert metrics(held([], [])) == Metrics(n=0, n_confident=0, n_counted=0)


def test_bins_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        metrics(held(["a"], ["a"], [0.5]), bins=0)


@FEW
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.sampled_from(["a", "b"]),
            STATED | st.just(math.nan),
            st.one_of(st.just(math.nan), UNIT),
        ),
        max_size=25,
    )
)
def test_every_set_of_outcomes_gives_json_with_finite_numbers(
    rows: list[tuple[str | None, str, float, float]],
) -> None:
    answers = [answer for answer, _, _, _ in rows]
    confidence = [math.nan if answer is None else stated for answer, _, stated, _ in rows]
    shares = [share for _, _, _, share in rows]

    found = by_task(held(answers, [truth for _, truth, _, _ in rows], confidence, shares, shares))

    for one in found.values():
        text = json.dumps(asdict(one), allow_nan=False)
        assert Metrics(**json.loads(text)) == one


@pytest.mark.parametrize("name", ["confidence", "share", "best_share"])
@pytest.mark.parametrize("value", [-0.1, 1.01, math.inf])
def test_numbers_outside_the_unit_interval_are_refused(name: str, value: float) -> None:
    numbers = {"confidence": [0.5], "share": [0.5], "best_share": [0.5]} | {name: [value]}

    with pytest.raises(ValueError, match=name):
        held(["a"], ["a"], numbers["confidence"], numbers["share"], numbers["best_share"])


def test_outcomes_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 entries of truth, expected 1"):
        held(["a"], ["a", "b"])


def test_a_malformed_response_has_no_confidence() -> None:
    with pytest.raises(ValueError, match="malformed"):
        held([None], ["a"], [0.5])


def test_an_empty_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="empty truth"):
        held(["a"], [" "])


def test_the_use_of_confidences_is_told_and_why_responses_are_malformed() -> None:
    outcomes = held(["a", "a", "b", None], ["a", "a", "a", "a"], [0.9, 0.7, 0.05, math.nan])
    told = replace(outcomes, prompt_id=["p"] * 4, cause=[None, None, None, "truncated"])

    found = metrics(told)

    assert (found.confidence_right, found.confidence_wrong) == pytest.approx((0.8, 0.05))
    assert found.confidence_entropy == pytest.approx(math.log(3))
    assert found.sabotage == pytest.approx(1 / 3)
    assert found.malformed_causes == {"truncated": 0.25}
    assert metrics(outcomes).malformed_causes is None
