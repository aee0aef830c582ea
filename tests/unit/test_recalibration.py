"""Tests of rewards.recalibration and rewards.baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from rewards.baselines import CONSTANT, ISOTONIC, TEMPERATURE, TOKEN_PROBABILITY, baselines
from rewards.metrics import metrics
from rewards.outcomes import Outcomes
from rewards.recalibration import Fit, Recalibrate, constant, constant_at_base_rate, cross_fitted, isotonic, temperature


def held(
    prompts: Sequence[str],
    right: Sequence[bool | None],
    confidence: Sequence[float],
    tokens: Sequence[float] | None = None,
) -> Outcomes:
    """Outcomes by prompt; an answer that is neither right nor wrong is malformed."""
    unknown = np.full(len(prompts), np.nan)
    return Outcomes(
        prompt_id=prompts,
        task=["emoji"] * len(prompts),
        answer=[None if one is None else "a" for one in right],
        truth=["a" if one else "b" for one in right],
        confidence=np.array(confidence, dtype=np.float64),
        share=unknown,
        best_share=unknown,
        token_probability=None if tokens is None else np.array(tokens, dtype=np.float64),
    )


def overconfident(prompts: int, each: int, seed: int = 0) -> Outcomes:
    """Stated .8 to 1 where it should be .2 to 1, in the right order."""
    rng = np.random.default_rng(seed)
    true = np.repeat(rng.integers(4, 21, prompts) / 20, each)
    right = rng.random(len(true)) < true
    names = [f"p{number}" for number in np.repeat(np.arange(prompts), each)]
    return held(names, right.tolist(), (0.75 + true / 4).tolist())


# Maps


def test_isotonic_pools_what_is_out_of_order_and_is_constant_beyond() -> None:
    confidence = np.array([0.2, 0.4, 0.6, 0.8])

    learned = isotonic(confidence, np.array([False, True, False, True]))

    assert learned(np.array([0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])).tolist() == [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]


def test_temperature_is_that_of_least_log_loss() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.integers(1, 100, 300) / 100
    odds = confidence / (1 - confidence)
    correct = rng.random(300) < odds**0.4 / (1 + odds**0.4)

    learned = temperature(confidence, correct)

    def log_loss(sharpness: float) -> float:
        made = odds**sharpness / (1 + odds**sharpness)
        return float(-np.log(np.where(correct, made, 1 - made)).mean())

    best = min(np.arange(0, 3, 0.001), key=log_loss)
    assert 0.2 < best < 0.6
    assert learned(np.array([0.9]))[0] == pytest.approx(9**best / (1 + 9**best), abs=1e-3)


def test_temperature_keeps_one_half_and_the_order_and_takes_certainty() -> None:
    stated = np.array([0.0, 0.2, 0.5, 0.7, 1.0])

    made = temperature(stated, np.array([True, False, True, True, False]))(stated)

    assert made[2] == 0.5
    assert (np.diff(made) > 0).all()
    assert (made > 0).all() and (made < 1).all()


def test_confidences_that_tell_the_wrong_way_round_become_one_half() -> None:
    confidence, correct = np.array([0.1, 0.9] * 5), np.array([True, False] * 5)

    assert temperature(confidence, correct)(np.array([0.9]))[0] == pytest.approx(0.5, abs=1e-3)


# Fitted on other prompts


def test_no_prompt_is_recalibrated_by_a_map_that_has_seen_it() -> None:
    outcomes = held(["p", "q", "p", "q"], [True, False, True, False], [0.5] * 4)

    found = cross_fitted(outcomes, constant)

    assert found is not None
    assert found.confidence.tolist() == [0.0, 1.0, 0.0, 1.0]  # each has the other's share of right answers


def test_the_prompts_are_halved_and_each_half_has_one_map() -> None:
    outcomes = overconfident(prompts=21, each=3)
    seen: list[int] = []

    def count(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Recalibrate:
        seen.append(len(confidence))
        return lambda stated: np.full_like(stated, len(confidence) / 100)

    found = cross_fitted(outcomes, count)

    assert sorted(seen) == [30, 33]
    assert found is not None
    assert len({(p, c) for p, c in zip(found.prompt_id, found.confidence.tolist(), strict=True)}) == 21
    assert sorted(found.confidence.tolist()) == [0.30] * 33 + [0.33] * 30


def test_the_seed_decides_the_halves_and_the_order_of_rows_does_not() -> None:
    outcomes = overconfident(prompts=20, each=2)
    order = np.arange(40)[::-1]
    backwards = held(
        [outcomes.prompt_id[row] for row in order],
        outcomes.correct[order].tolist(),
        outcomes.confidence[order].tolist(),
    )

    made = [cross_fitted(one, isotonic, seed) for one, seed in ((outcomes, 1), (backwards, 1), (outcomes, 2))]

    first, reversed_, other = (one.confidence for one in made if one is not None)
    assert first.tolist() == reversed_[::-1].tolist() != other.tolist()


def test_responses_without_a_confidence_have_none_and_teach_nothing() -> None:
    outcomes = held(["p", "q", "p", "r"], [True, False, None, True], [0.5, 0.5, math.nan, math.nan])

    found = cross_fitted(outcomes, constant)

    assert found is not None
    assert found.confidence.tolist() == pytest.approx([0.0, 1.0, math.nan, math.nan], nan_ok=True)


def test_one_prompt_has_nothing_held_out() -> None:
    assert cross_fitted(held(["p", "p", "q"], [True, False, None], [0.5, 0.5, math.nan]), constant) is None


def test_the_constant_needs_no_confidence_but_an_answer() -> None:
    outcomes = held(["p", "q", "q"], [True, False, None], [math.nan] * 3)

    found = constant_at_base_rate(outcomes)

    assert found is not None
    assert found.confidence.tolist() == pytest.approx([0.0, 1.0, math.nan], nan_ok=True)


@pytest.mark.parametrize("fit, gain", [(isotonic, 0.8), (temperature, 0.2)])
def test_what_is_wrong_with_the_scale_alone_is_mended(fit: Fit, gain: float) -> None:
    outcomes = overconfident(prompts=400, each=4)

    found = cross_fitted(outcomes, fit)

    assert found is not None
    before, after = metrics(outcomes), metrics(found)
    assert before.reliability is not None and after.reliability is not None
    assert after.reliability < (1 - gain) * before.reliability
    assert after.accuracy == before.accuracy


# Baselines


def test_every_baseline_has_the_answers_and_other_confidences() -> None:
    outcomes = held(["p", "q"] * 10, [True, False] * 10, [0.9, 0.6] * 10, tokens=[0.504, 0.25] * 10)

    found = baselines(outcomes, bins=7)

    assert list(found) == [CONSTANT, TOKEN_PROBABILITY, ISOTONIC, TEMPERATURE]
    assert {(one.n, one.accuracy, one.ece_bins) for one in found.values()} == {(20, 0.5, 7)}
    assert found[TOKEN_PROBABILITY].mean_confidence == pytest.approx((0.5 + 0.25) / 2)
    assert found[CONSTANT].brier == 1.0  # two prompts: each has the other's base rate
    assert found[ISOTONIC] == metrics(cross_fitted(outcomes, isotonic) or outcomes, 7)
    assert found[TEMPERATURE] == metrics(cross_fitted(outcomes, temperature) or outcomes, 7)


def test_baselines_that_the_outcomes_do_not_allow_are_left_out() -> None:
    stage_1 = held(["p", "q"], [True, False], [math.nan] * 2, tokens=[0.9, 0.8])
    untold = held(["p", "q"], [True, False], [0.5, 0.5], tokens=[math.nan] * 2)

    assert list(baselines(stage_1)) == [CONSTANT, TOKEN_PROBABILITY]
    assert list(baselines(untold)) == [CONSTANT, ISOTONIC, TEMPERATURE]
    assert baselines(held(["p"], [True], [0.5])) == {}


def test_a_constant_learned_elsewhere_is_a_little_worse_than_the_best_one() -> None:
    outcomes = overconfident(prompts=400, each=4)

    brier = baselines(outcomes)[CONSTANT].brier

    best = metrics(outcomes).constant_brier
    assert brier is not None and best is not None
    assert best < brier < best + 0.005
