"""Calibration of responses that are added up and not kept: a step's, and a whole run's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rewards.bins import equal_width_bins, noise_floor

_BINS = 10


@dataclass(slots=True)
class StatedSums:
    """Sums by stated confidence: of these a run uses a hundred or so, however many responses state them."""

    rows: dict[float, list[float]] = field(default_factory=dict)
    """Responses that state the value, and the sums of their correctness (1, 0 or a share) and of its squares."""

    def add(self, confidence: float, correct: float) -> None:
        """Count a response; both in [0, 1]."""
        row = self.rows.setdefault(confidence, [0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, correct, correct**2)):
            row[place] += value

    def measured(self) -> dict[str, float]:
        """n, accuracy, mean confidence, ECE in [0, 1] and Brier score; at least one response.

        ECE is that of `rewards.bins.calibration_error` over 10 bins of equal width.
        """
        confidence = np.array(list(self.rows))  # [V] values, and so are the other three
        stated, right, squares = np.array(list(self.rows.values())).T
        n = float(stated.sum())
        gaps = np.bincount(equal_width_bins(confidence, _BINS), weights=stated * confidence - right)
        return {
            "n": n,
            "accuracy": float(right.sum()) / n,
            "confidence": float(stated @ confidence) / n,
            "ece": float(np.abs(gaps).sum()) / n,
            # sum of (c - o)^2 = c^2 - 2 c o + o^2, of which a row has the sums over o
            "brier": float(stated @ confidence**2 - 2 * confidence @ right + squares.sum()) / n,
        }

    def noise_floor(self) -> float:
        """The ECE to expect if each answer were right with just its stated probability, whatever the others are.

        Too low where responses share a prompt: the sums do not tell which do.
        """
        confidence = np.repeat(list(self.rows), [int(stated) for stated, _, _ in self.rows.values()])
        return noise_floor(confidence, equal_width_bins(confidence, _BINS))
