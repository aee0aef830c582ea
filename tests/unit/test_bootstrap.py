from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import rewards.bootstrap
from rewards.bootstrap import Difference, auroc, compare, intervals, resampled_tally
from rewards.metrics import metrics
from rewards.outcomes import Outcomes

OF_COUNTS = {"majority_accuracy", "excess_brier", "majority_auroc"}
NAMES = [
    "accuracy",
    "majority_accuracy",
    "mean_confidence",
    "ece",
    "brier",
    "excess_brier",
    "auroc",
    "majority_auroc",
    "aurc",
]


def simulated(prompts: int = 12, each: int = 3, seed: int = 0, digits: int = 1) -> Outcomes:
    """Outcomes of prompts that differ in how often the answer is right, and of which every fourth has no votes.

    One response in six is malformed.
    """
    rng = np.random.default_rng(seed)
    n = prompts * each
    share = np.repeat(rng.random(prompts), each)
    malformed = rng.random(n) < 1 / 6
    counted = np.repeat(np.arange(prompts) % 4 > 0, each)
    return Outcomes(
        prompt_id=[f"p{number}" for number in np.repeat(np.arange(prompts), each)],
        task=["simulated"] * n,
        answer=[None if bad else "yes" for bad in malformed],
        truth=["yes" if right else "no" for right in rng.random(n) < share],
        confidence=np.where(malformed, np.nan, np.round(rng.random(n), digits)),
        share=np.where(counted, np.where(malformed, 0.0, share), np.nan),
        best_share=np.where(counted, np.maximum(share, 1 - share), np.nan),
    )


def taken(outcomes: Outcomes, rows: NDArray[np.intp]) -> Outcomes:
    """The outcomes of these rows, in their order and as often as they are named."""
    return Outcomes(
        prompt_id=[outcomes.prompt_id[row] for row in rows],
        task=[outcomes.task[row] for row in rows],
        answer=[outcomes.answer[row] for row in rows],
        truth=[outcomes.truth[row] for row in rows],
        confidence=outcomes.confidence[rows],
        share=outcomes.share[rows],
        best_share=outcomes.best_share[rows],
    )


def test_intervals_are_those_of_metrics_over_copies_of_the_prompts_that_were_drawn() -> None:
    held = simulated()
    rows_of = [np.flatnonzero(np.array(held.prompt_id) == f"p{number}") for number in range(12)]
    copies = [
        metrics(taken(held, np.concatenate([np.tile(rows, times) for rows, times in zip(rows_of, drawn, strict=True)])))
        for drawn in np.random.default_rng(5).multinomial(12, [1 / 12] * 12, size=20)
    ]

    found = intervals(held, resamples=20, seed=5)

    assert list(found) == NAMES
    for name, interval in found.items():
        values = [getattr(one, name) for one in copies]
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
        assert interval.value == pytest.approx(getattr(metrics(held), name))


def test_outcomes_that_come_along_with_their_prompt_make_no_interval_narrower() -> None:
    held = simulated(each=1)

    again = taken(held, np.tile(np.arange(12), 10))

    once, tenfold = intervals(held, 50), intervals(again, 50)
    for name in set(NAMES) - {"aurc"}:  # its coverages are of other sizes
        assert tenfold[name].low == pytest.approx(once[name].low)
        assert tenfold[name].high == pytest.approx(once[name].high)


def test_many_confidences_are_taken_in_parts_and_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held = simulated(digits=9)
    at_once = intervals(held, 30)

    monkeypatch.setattr(rewards.bootstrap, "_NUMBERS_AT_ONCE", 100)

    assert intervals(held, 30) == at_once


def test_the_seed_decides_the_resamples() -> None:
    held = simulated()

    assert intervals(held, 50, seed=1) == intervals(held, 50, seed=1) != intervals(held, 50, seed=2)


def test_what_is_undefined_has_no_interval_and_costs_no_other_its_own() -> None:
    held = simulated()
    unstated = replace(held, confidence=np.full(len(held), np.nan))
    uncounted = replace(held, share=np.full(len(held), np.nan))

    assert list(intervals(unstated, 10)) == ["accuracy", "majority_accuracy"]
    assert list(intervals(uncounted, 10)) == [name for name in NAMES if name not in OF_COUNTS]


def test_resamples_in_which_a_metric_is_undefined_are_left_out_of_its_interval() -> None:
    two = taken(simulated(), np.array([0, 1]))
    two = replace(two, prompt_id=["p0", "p1"], answer=["a", "a"], truth=["a", "b"], confidence=np.array([0.9, 0.1]))

    auroc = intervals(two, 50)["auroc"]

    assert (auroc.low, auroc.high) == (1.0, 1.0)  # a prompt drawn twice is of one class alone


@pytest.mark.parametrize("prompts, resamples", [(1, 10), (12, 0)])
def test_one_prompt_or_no_resample_is_too_few(prompts: int, resamples: int) -> None:
    with pytest.raises(ValueError, match=f"got {resamples} resamples of {prompts} prompts"):
        intervals(simulated(prompts), resamples)


# Two runs


def test_a_run_does_not_differ_from_itself() -> None:
    held = simulated()

    found = compare(held, held, 20)

    assert list(found) == NAMES
    for name, difference in found.items():
        value = getattr(metrics(held), name)
        assert difference == Difference(pytest.approx(value), pytest.approx(value), 0.0, 0.0, opposed=1.0)


def test_both_runs_meet_the_same_prompts_whatever_their_order() -> None:
    held = simulated()
    bolder = replace(held, confidence=held.confidence / 2 + 0.5)
    shuffled = taken(bolder, np.random.default_rng(3).permutation(len(held)))
    prompts = np.array(held.prompt_id)[held.confident]

    found = compare(held, shuffled, 200)["mean_confidence"]

    gains = (bolder.confidence - held.confidence)[held.confident]
    drawn = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=200)
    counts = np.array([[row[int(prompt[1:])] for prompt in prompts] for row in drawn])
    low, high = np.quantile((counts @ gains) / counts.sum(axis=1), [0.025, 0.975])
    assert found.value == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.opposed == 0.0


def test_opposed_is_the_share_of_resamples_of_the_other_sign() -> None:
    worse, better = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.3, 0.6, 0.6, 0.6])
    first = replace(
        taken(simulated(), np.arange(4)),
        prompt_id=list("abcd"),
        answer=["yes"] * 4,
        confidence=worse,
    )

    found = compare(first, replace(first, confidence=better), 4000)["mean_confidence"]

    # the mean rises by (-0.2 a + 0.1 (4 - a)) / 4 where the first prompt is drawn a times of 4: not above 0 from a = 2
    at_most_one = 0.75**4 + 4 * 0.25 * 0.75**3
    assert found.value == pytest.approx(0.025)
    assert found.opposed == pytest.approx(1 - at_most_one, abs=0.03)


@pytest.mark.parametrize("change", [{"prompt_id": "other"}, {"task": "another"}])
def test_runs_over_different_prompts_are_refused(change: dict[str, str]) -> None:
    held = simulated()
    (name, value), *_ = change.items()
    changed = replace(held, **{name: [value, *getattr(held, name)[1:]]})

    with pytest.raises(ValueError, match="different prompts: 1 are in one alone"):
        compare(held, changed, 10)


def test_what_is_undefined_for_one_of_them_is_not_compared() -> None:
    held = simulated()

    assert list(compare(held, replace(held, confidence=np.full(len(held), np.nan)), 10)) == [
        "accuracy",
        "majority_accuracy",
    ]


def test_a_tally_of_every_resample_gives_the_intervals_of_what_is_made_of_it() -> None:
    outcomes = simulated()
    stated = outcomes.where(outcomes.confident)

    found = auroc(resampled_tally(stated.prompt_id, stated.confidence, stated.correct, resamples=300, seed=4))

    expected = intervals(stated, resamples=300, seed=4)["auroc"]
    assert found[0] == pytest.approx(expected.value)
    assert np.nanquantile(found[1:], [0.025, 0.975]) == pytest.approx([expected.low, expected.high], abs=0.05)


def test_resamples_of_two_runs_over_the_same_prompts_draw_the_same_of_them() -> None:
    prompts, sure = ["b", "a", "c", "a"], np.full(4, 0.5)
    right = np.array([True, False, False, True])

    one = resampled_tally(prompts, sure, right, resamples=50, seed=1)
    other = resampled_tally(prompts, np.array([0.1, 0.2, 0.3, 0.4]), right, resamples=50, seed=1)

    assert one.right[0].tolist() == [2] and one.wrong[0].tolist() == [2]
    assert np.array_equal(one.right.sum(-1), other.right.sum(-1))
    assert len(np.unique(one.right.sum(-1))) > 1
