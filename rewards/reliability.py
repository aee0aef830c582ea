"""The reliability diagram in numbers: how often answers of about one stated confidence are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewards.bins import equal_width_bins
from rewards.bootstrap import RESAMPLES, Interval, distinct_prompts, drawn_prompts, middle
from rewards.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class Bin:
    """The outcomes whose stated confidence is in a bin of equal width."""

    n: int
    mean_confidence: float
    right: Interval  # share of them that are right; a resample without any of them is left out


def reliability(outcomes: Outcomes, bins: int, resamples: int = RESAMPLES, seed: int = 0) -> list[Bin]:
    """The bins that hold an outcome, lowest first. Raises ValueError as `rewards.bootstrap.intervals` does."""
    prompts = distinct_prompts(outcomes)
    drawn = drawn_prompts(len(prompts), resamples, seed)  # [1 + R, P]
    column = {prompt: number for number, prompt in enumerate(prompts)}
    stated = outcomes.where(outcomes.confident)
    bin_of = equal_width_bins(stated.confidence, bins)
    at = np.array([column[prompt] for prompt in stated.prompt_id], dtype=np.intp), bin_of
    counted, right = np.zeros((2, len(prompts), bins))
    np.add.at(counted, at, 1)
    np.add.at(right, at, stated.correct)
    with np.errstate(invalid="ignore"):
        share = (drawn @ right) / (drawn @ counted)  # [1 + R, bins]
    return [
        Bin(
            n=int((bin_of == number).sum()),
            mean_confidence=float(stated.confidence[bin_of == number].mean()),
            right=Interval(float(share[0, number]), *middle(share[1:, number])),
        )
        for number in np.unique(bin_of)
    ]
