"""Smooth ECE: a calibration error without bins, and without a bandwidth to choose (Błasiok & Nakkiran 2023).

    error at a bandwidth = integral over t in [0, 1] of |mean of K(t, confidence) (confidence - correct)|
    smooth ECE           = the bandwidth that equals the error at it

K is the Gaussian kernel, reflected at 0 and 1. The error falls as the bandwidth grows, so there is one such bandwidth.

relplot, by an author of the paper, cuts the kernel off at half the interval, seeks the bandwidth in steps of 1/1024,
and leaves out the mirror image of mass at exactly 0 or 1, which then weighs half. Here each confidence weighs the same.

A reflected Gaussian damps the cosine of k half waves on [0, 1] by exp(-(pi k bandwidth)^2 / 2), and
mixes it with no other: on a grid, smoothing is a product between two cosine transforms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.optimize import bisect

_INTERVALS = 2000  # of the grid: stated confidences, up to three decimals, lie on its nodes
_TOLERANCE = 1e-6


def smooth_ece(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Smooth ECE in [0, 1] of [n] confidences against [n] outcomes; n >= 1."""
    waves = _cosines(_on_grid(confidence, (confidence - correct) / len(confidence)))

    def above_bandwidth(bandwidth: float) -> float:
        return _error(waves, bandwidth) - bandwidth

    if above_bandwidth(0.0) <= _TOLERANCE:
        return 0.0
    return float(bisect(above_bandwidth, 0.0, 1.0 + _TOLERANCE, xtol=_TOLERANCE))


def _on_grid(position: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N + 1] the masses at the nodes 0, 1/N .. 1; a mass between two nodes is shared by its distance to them."""
    place = np.round(position * _INTERVALS, 9)  # 0.07 x 2000 is a hair above 140
    left = np.minimum(place.astype(np.intp), _INTERVALS - 1)
    to_right = place - left
    masses = np.zeros(_INTERVALS + 1)
    np.add.at(masses, left, mass * (1 - to_right))
    np.add.at(masses, left + 1, mass * to_right)
    return masses


def _cosines(masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N + 1] sum over the nodes t of mass(t) cos(pi k t), for k = 0..N."""
    once = masses.copy()
    once[1:-1] /= 2  # the transform counts inner nodes twice
    return np.asarray(dct(once, type=1), dtype=np.float64)


def _error(waves: NDArray[np.float64], bandwidth: float) -> float:
    """The error at a bandwidth, by the trapezoidal rule."""
    damping = np.exp(-((np.pi * np.arange(len(waves)) * bandwidth) ** 2) / 2)
    density = dct(waves * damping, type=1)
    return float(np.trapezoid(np.abs(density), dx=1 / _INTERVALS))
