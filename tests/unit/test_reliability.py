"""The numbers of a reliability diagram."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.bins import calibration_error, equal_width_bins
from rewards.outcomes import Outcomes
from rewards.reliability import FEWEST, reliability


def held(confidence: list[float], right: list[bool], prompts: list[str] | None = None) -> Outcomes:
    n = len(confidence)
    unknown = np.full(n, np.nan)
    return Outcomes(
        prompt_id=[f"p{i}" for i in range(n)] if prompts is None else prompts,
        task=["t"] * n,
        answer=[None if np.isnan(c) else "a" if hit else "b" for c, hit in zip(confidence, right, strict=True)],
        truth=["a"] * n,
        confidence=np.array(confidence),
        share=unknown,
        best_share=unknown,
    )


def test_a_bin_has_what_was_stated_in_it_and_how_much_of_that_is_right() -> None:
    found = reliability(held([0.7, 0.75, 0.79, 0.2, 1.0], [True, True, False, False, True]))

    assert [(one.low, one.n, one.right) for one in found] == [(0.2, 1, 0), (0.7, 3, 2), (0.9, 1, 1)]
    assert found[1].confidence == pytest.approx((0.7 + 0.75 + 0.79) / 3)
    assert found[1].accuracy == pytest.approx(2 / 3)


def test_malformed_responses_are_in_no_bin() -> None:
    found = reliability(held([np.nan, 0.5], [False, True]))

    assert [one.n for one in found] == [1]


def test_without_confidences_there_are_no_bins() -> None:
    assert reliability(held([np.nan, np.nan], [False, False])) == []


def test_the_interval_holds_the_share_that_is_right_and_narrows_with_the_number_of_prompts() -> None:
    few, many = (reliability(held([0.5] * n, [i % 2 == 0 for i in range(n)]))[0] for n in (20, 2000))

    assert few.interval is not None and many.interval is not None
    assert few.interval[0] < 0.5 < few.interval[1]
    assert many.interval == pytest.approx((0.478, 0.522), abs=0.005)  # 0.5 -+ 1.96 sqrt(0.25 / 2000)


def test_responses_to_one_prompt_count_as_one() -> None:
    right = [i % 40 < 20 for i in range(400)]  # each prompt all right or all wrong
    apart = reliability(held([0.5] * 400, right))[0]
    together = reliability(held([0.5] * 400, right, [f"p{i // 20}" for i in range(400)]))[0]

    assert apart.interval is not None and together.interval is not None
    assert together.interval[1] - together.interval[0] > 3 * (apart.interval[1] - apart.interval[0])


def test_too_few_responses_and_those_to_one_prompt_have_no_interval() -> None:
    few = held([0.5] * (FEWEST - 1) + [0.9], [True] * FEWEST)
    one_prompt = held([0.5] * FEWEST + [0.9], [True] * (FEWEST + 1), ["p"] * FEWEST + ["q"])

    assert [reliability(of)[0].interval for of in (few, one_prompt)] == [None, None]


def test_the_bins_give_back_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    outcomes = held(rng.choice([0.05, 0.35, 0.7, 1.0, np.nan], 240).tolist(), (rng.random(240) < 0.5).tolist())
    stated = outcomes.where(outcomes.confident)

    bins = reliability(outcomes, 10)

    error = sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / len(stated)
    found = calibration_error(stated.confidence, stated.correct, equal_width_bins(stated.confidence, 10))
    assert error == pytest.approx(found)
