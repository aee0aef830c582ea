from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from cluster.reliability_picture import picture
from rewards.bins import calibration_error, equal_width_bins
from rewards.outcomes import Outcomes
from rewards.reliability import reliability


def held(prompts: int, responses: int, rng: np.random.Generator) -> Outcomes:
    """Responses whose being right hangs on the prompt alone; some without a confidence."""
    n = prompts * responses
    confidence = rng.choice([0.05, 0.35, 0.7, 1.0, np.nan], n)
    right = np.repeat(rng.random(prompts) < 0.5, responses)
    return Outcomes(
        prompt_id=[f"p{number // responses}" for number in range(n)],
        task=["t"] * n,
        answer=[None if np.isnan(c) else "a" for c in confidence],
        truth=["a" if r else "b" for r in right],
        confidence=confidence,
        share=np.full(n, np.nan),
        best_share=np.full(n, np.nan),
    )


def test_the_bins_hold_every_stated_confidence_and_give_back_the_calibration_error() -> None:
    outcomes = held(60, 4, np.random.default_rng(0))
    stated = outcomes.where(outcomes.confident)

    bins = reliability(outcomes, 10)

    assert sum(one.n for one in bins) == len(stated)
    assert [one.mean_confidence for one in bins] == pytest.approx([0.05, 0.35, 0.7, 1.0])
    error = sum(one.n * abs(one.mean_confidence - one.right.value) for one in bins) / len(stated)
    found = calibration_error(stated.confidence, stated.correct, equal_width_bins(stated.confidence, 10))
    assert error == pytest.approx(found)
    assert all(0 <= one.right.low <= one.right.value <= one.right.high <= 1 for one in bins)


def test_responses_to_one_prompt_do_not_narrow_an_interval() -> None:
    def width(responses: int) -> float:
        bins = reliability(held(60, responses, np.random.default_rng(1)), 1)
        return bins[0].right.high - bins[0].right.low

    assert width(50) > 0.2  # of 60 prompts; of 3,000 outcomes it would be 0.04
    assert width(50) == pytest.approx(width(5), rel=0.4)


def test_the_picture_has_a_point_for_each_bin_where_its_numbers_are() -> None:
    bins = reliability(held(60, 4, np.random.default_rng(0)), 10)

    svg = ElementTree.fromstring(picture("seen & <unseen>", bins))

    groups = svg.findall("./{*}g")
    assert len(groups) == len(bins) == 4
    for one, group in zip(bins, groups, strict=True):
        (point,) = group.findall("./{*}circle")
        (upright,) = group.findall("./{*}line")
        assert float(point.attrib["cx"]) == pytest.approx(70 + 400 * one.mean_confidence, abs=0.1)
        assert float(point.attrib["cy"]) == pytest.approx(450 - 400 * one.right.value, abs=0.1)
        assert float(upright.attrib["y1"]) == pytest.approx(450 - 400 * one.right.low, abs=0.1)
        assert float(upright.attrib["y2"]) == pytest.approx(450 - 400 * one.right.high, abs=0.1)
        assert f"{one.n} answers" in (group.findtext("./{*}title") or "")
