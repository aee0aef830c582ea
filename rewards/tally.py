"""How often each confidence was stated with a right answer, and how often with a wrong one.

What depends on confidence and correctness alone can be computed from it, whatever the order of the responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts by confidence; leading axes, where there are any, are sets of responses with the same confidences."""

    values: NDArray[np.float64]  # [V] confidences in [0, 1], ascending, each once
    right: NDArray[np.float64]  # [..., V] responses that state the value and are right, >= 0
    wrong: NDArray[np.float64]  # [..., V] those that state it and are wrong, >= 0

    @property
    def stated(self) -> NDArray[np.float64]:
        """[..., V] responses that state the value."""
        return self.right + self.wrong


def tally(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Tally:
    """The counts of [n] confidences and whether their answers are right [n]."""
    values, place = np.unique(confidence, return_inverse=True)
    stated = np.bincount(place, minlength=len(values)).astype(np.float64)
    right = np.bincount(place[correct], minlength=len(values)).astype(np.float64)
    return Tally(values, right, stated - right)
