"""Calibration error over bins: bins, the error over them, and how much of it is chance alone.

ECE = sum over bins of |sum of (confidence - correct) in the bin| / n   (Naeini et al. 2015; Guo et al. 2017)

A binning is a function from confidences to bin numbers, so that the errors and the noise floor
are the same functions whichever bins are used. Every confidence in [0, 1] is in a bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FLOOR_SIMULATIONS = 200  # leaves about 3% of the floor's own size as its simulation error


def equal_width_bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """[n] bin numbers for [n] confidences: [k/bins, (k+1)/bins), the last bin closed at 1.

    The edges are divisions, not `linspace`: linspace(0, 1, 11)[7] is a little above 0.7, which
    would put a stated 0.7 one bin too low.
    """
    inner_edges = np.arange(1, bins) / bins
    return np.searchsorted(inner_edges, confidence, side="right")


def equal_mass_bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """[n] bin numbers for [n] confidences, about n/bins in each; equal confidences share a bin.

    A value goes to the bin of its middle rank. Stated confidences are mostly ties, and cutting
    through a tie would make the error depend on the order of the responses.
    """
    twice_middle = (2 * rankdata(confidence, method="average") - 1).astype(np.intp)  # 2 x rank from 0, + 1
    return twice_middle * bins // (2 * len(confidence))


def calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_] | NDArray[np.float64], bin_of: NDArray[np.intp]
) -> float:
    """ECE in [0, 1] of [n] confidences against [n] outcomes over the bins [n]; n >= 1."""
    gaps = np.bincount(bin_of, weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))


def debiased_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bin_of: NDArray[np.intp]
) -> float | None:
    """Root mean square calibration error of [n] confidences over the bins [n], without what is chance in it.

    The squared gap of a bin of n_b outcomes, o of them right, is o (1 - o) / (n_b - 1) too large on average
    (Kumar et al. 2019, section 5; Bröcker 2012). 0 where chance explains all; bins of one outcome, whose
    chance cannot be told, are left out; None where there are no others. Outcomes count as independent.
    """
    sizes = np.bincount(bin_of)
    used = sizes > 1
    if not used.any():
        return None
    n = sizes[used]
    gap = np.bincount(bin_of, weights=confidence - correct)[used] / n
    right = np.bincount(bin_of, weights=correct)[used] / n
    squared = n @ (gap**2 - right * (1 - right) / (n - 1)) / n.sum()
    return float(np.sqrt(max(squared, 0.0)))


def noise_floor(
    confidence: NDArray[np.float64],
    bin_of: NDArray[np.intp],
    seed: int = 0,
    simulations: int = FLOOR_SIMULATIONS,
) -> float:
    """ECE to expect of a perfectly calibrated model that states these [n] confidences over these bins [n].

    Simulated: each answer is right with exactly its stated probability. Equal confidences share a
    bin, so one binomial draw stands for all answers that state the same value.
    """
    values, first, stated = np.unique(confidence, return_index=True, return_counts=True)
    bin_of_value = bin_of[first]
    rng = np.random.default_rng(seed)

    total = 0.0
    for _ in range(simulations):
        right = rng.binomial(stated, values)
        total += float(np.abs(np.bincount(bin_of_value, weights=stated * values - right)).sum())
    return total / (simulations * len(confidence))
