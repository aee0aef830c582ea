"""Calibration error over bins: bins, the error over them, and how much of it is chance alone.

ECE = sum over bins of |sum of (confidence - correct) in the bin| / n   (Naeini et al. 2015; Guo et al. 2017)

The floor is what a perfectly calibrated model would show: by itself for independent outcomes, and from the outcomes'
own residuals where several share a response or a prompt and so say less than as many independent ones.

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

    Simulated: each answer is right with exactly its stated probability, whatever the others are. n >= 1.
    """
    gaps = _independent_gaps(confidence, bin_of, np.random.default_rng(seed), simulations)
    return float(np.abs(gaps).sum() / (simulations * len(confidence)))


def clustered_noise_floor(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    bin_of: NDArray[np.intp],
    cluster: NDArray[np.intp],
    seed: int = 0,
    simulations: int = FLOOR_SIMULATIONS,
) -> float:
    """`noise_floor` where outcomes of a cluster go together: annotators of a response, responses to a prompt.

    All [n], n >= 1. What the outcomes of a cluster have in common is not known, but shows in their residuals,
    confidence - correct. A wild cluster bootstrap (Cameron, Gelbach & Miller 2008) gives those of a cluster one random
    sign. First each bin's mean residual, which is what the model is off there, is taken from them, and what that takes
    from their variance is put back; where a bin has one cluster, all that it is off counts as chance. A cluster of one
    outcome is simulated as in `noise_floor`, so that without larger ones this is that.
    """
    _, cluster, size = np.unique(cluster, return_inverse=True, return_counts=True)
    shared, rng = size[cluster] > 1, np.random.default_rng(seed)
    gaps = _independent_gaps(confidence[~shared], bin_of[~shared], rng, simulations, bins=int(bin_of.max()) + 1)
    if shared.any():
        residuals = _residuals(confidence, correct, bin_of, cluster)[np.unique(cluster[shared])]
        gaps = gaps + rng.choice([-1.0, 1.0], (simulations, len(residuals))) @ residuals
    return float(np.abs(gaps).sum() / (simulations * len(confidence)))


def _independent_gaps(
    confidence: NDArray[np.float64],
    bin_of: NDArray[np.intp],
    rng: np.random.Generator,
    simulations: int,
    bins: int = 0,
) -> NDArray[np.float64]:
    """[S, B] sum of confidence - correct in each bin, if answers are right independently with their confidence [n].

    B: `bins`, or more if need be. Equal confidences share a bin, so one binomial draw stands for all that state one.
    """
    values, first, stated = np.unique(confidence, return_index=True, return_counts=True)
    gaps = stated * values - rng.binomial(stated, values, (simulations, len(values)))
    in_bin = np.eye(max(bins, int(bin_of.max(initial=0)) + 1))[bin_of[first]]
    return np.asarray(gaps @ in_bin)


def _residuals(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bin_of: NDArray[np.intp], cluster: NDArray[np.intp]
) -> NDArray[np.float64]:
    """[K, B] sum of confidence - correct of each cluster in each bin, less what all of the bin are off on average."""
    shape = int(cluster.max()) + 1, int(bin_of.max()) + 1
    gaps, sizes = np.zeros(shape), np.zeros(shape)
    np.add.at(gaps, (cluster, bin_of), confidence - correct)
    np.add.at(sizes, (cluster, bin_of), 1.0)
    n = np.maximum(sizes.sum(axis=0), 1.0)
    clusters = n**2 / np.maximum((sizes**2).sum(axis=0), 1.0)  # [B] as many as of equal size would have the variance
    several = clusters > 1
    centred = (gaps - sizes * gaps.sum(axis=0) / n) * np.sqrt(clusters / np.where(several, clusters - 1, 1.0))
    return np.where(several, centred, gaps)
