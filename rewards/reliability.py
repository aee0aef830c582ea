"""The reliability diagram's numbers: what is stated in a bin, how often that is right, and how sure that is.

Intervals are those of `rewards.bootstrap`, over prompts. A bin in which nearly all resamples agree, because few
responses are in it, would have too narrow a one: below FEWEST responses there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewards.bins import equal_width_bins
from rewards.bootstrap import RESAMPLES, drawn_prompts, middle
from rewards.outcomes import Outcomes

FEWEST = 10  # responses of a bin that has an interval


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Responses whose confidence is in [low, high); the last bin holds 1 too."""

    low: float
    high: float
    n: int  # 1 or more
    right: int
    confidence: float  # mean
    interval: tuple[float, float] | None  # 95%, of the share that is right; None: fewer than FEWEST, or of one prompt

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return self.right / self.n


def reliability(outcomes: Outcomes, bins: int = 10, resamples: int = RESAMPLES, seed: int = 0) -> list[ReliabilityBin]:
    """The bins of equal width that hold a readable confidence, ascending."""
    stated = outcomes.confident
    confidence, correct = outcomes.confidence[stated], outcomes.correct[stated]
    place = equal_width_bins(confidence, bins)
    prompts, prompt = np.unique(np.array(outcomes.prompt_id, dtype=np.str_)[stated], return_inverse=True)
    cell = prompt * bins + place
    counted, right = (
        np.bincount(cell, weights, len(prompts) * bins).reshape(len(prompts), bins)
        for weights in (None, correct.astype(np.float64))
    )
    drawn = drawn_prompts(len(prompts), resamples, seed) if len(prompts) > 1 else np.ones((1, len(prompts)))
    n, hits = drawn @ counted, drawn @ right
    known = (n[0] >= FEWEST) & ((counted > 0).sum(axis=0) > 1)  # [bins]
    share = np.divide(hits, n, out=np.full_like(n, np.nan), where=n > 0)  # [1 + R, bins]
    return [
        ReliabilityBin(
            low=number / bins,
            high=(number + 1) / bins,
            n=int(n[0, number]),
            right=int(hits[0, number]),
            confidence=float(confidence[place == number].mean()),
            interval=middle(share[1:, number]) if known[number] else None,
        )
        for number in range(bins)
        if n[0, number]
    ]
