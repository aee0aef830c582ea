"""What a Brier score is made of: false confidences, and answers that the confidence does not tell apart.

Brier = reliability - resolution + uncertainty   (Murphy 1973)

    reliability = sum over k of n_k (c_k - o_k)^2 / n
    resolution  = sum over k of n_k (o_k - o)^2 / n
    uncertainty = o (1 - o)

c_k: confidence of group k of n_k responses, o_k: share of them that is right, o: share of all n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The three parts, each >= 0."""

    reliability: float  # what the confidences are off; 0 is best
    resolution: float  # what they gain by telling right answers from wrong ones; uncertainty is best
    uncertainty: float  # the Brier score of the best constant


def decompose(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_] | NDArray[np.float64],
    bin_of: NDArray[np.intp] | None = None,
) -> Decomposition:
    """The parts of the Brier score of [n] confidences against [n] outcomes; n >= 1.

    A group is all responses that state the same value: then the parts sum up to the score exactly. Over bins
    [n] a bin's mean confidence stands for those in it, and what varies within bins is in none of the parts.
    Confidences that are hardly ever stated twice need bins: a group of one has all the resolution there is.
    """
    group = np.unique(confidence, return_inverse=True)[1] if bin_of is None else bin_of
    sizes = np.bincount(group)
    used = sizes > 0
    share = sizes[used] / len(confidence)
    stated = np.bincount(group, weights=confidence)[used] / sizes[used]
    right = np.bincount(group, weights=correct)[used] / sizes[used]
    base_rate = float(correct.mean())
    return Decomposition(
        reliability=float(share @ (stated - right) ** 2),
        resolution=float(share @ (right - base_rate) ** 2),
        uncertainty=base_rate * (1 - base_rate),
    )
