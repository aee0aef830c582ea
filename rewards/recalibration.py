"""What stated confidences could be after training: maps from them to better ones, learned from other prompts.

A map is fitted on confidences and whether their answers were right. `cross_fitted` splits the prompts in two
and gives each half the map of the other, so that no response is recalibrated by a map that has seen its prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from rewards.outcomes import Outcomes

Recalibrate = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # [n] confidences to [n] confidences
Fit = Callable[[NDArray[np.float64], NDArray[np.bool_]], Recalibrate]  # from [n] confidences, [n] whether right

_CLIP = 0.01  # the logit of a stated 0 or 1 is infinite
_SHARPEST = 20.0  # inverse temperature: 0.55 becomes 0.98; a separable sample asks for an infinite one


def isotonic(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Recalibrate:
    """The nondecreasing map of least squared error (Zadrozny & Elkan 2002); constant beyond what it was fitted on."""
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, correct)
    return lambda stated: np.asarray(regression.predict(stated), dtype=np.float64)


def temperature(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Recalibrate:
    """The logit of the confidence over one temperature, that of least log loss (Guo et al. 2017).

    One half stays one half, and the order of confidences stays: it makes all bolder, or all more timid.
    """
    toward_truth = _logit(confidence) * np.where(correct, 1, -1)

    def log_loss(sharpness: float) -> float:  # convex
        return float(np.logaddexp(0, -sharpness * toward_truth).mean())

    sharpness = minimize_scalar(log_loss, bounds=(0, _SHARPEST), method="bounded").x
    return lambda stated: np.asarray(expit(sharpness * _logit(stated)), dtype=np.float64)


def constant(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Recalibrate:
    """The base rate, whatever was stated."""
    base_rate = float(correct.mean())
    return lambda stated: np.full_like(stated, base_rate)


def cross_fitted(outcomes: Outcomes, fit: Fit, seed: int = 0) -> Outcomes | None:
    """The outcomes with recalibrated confidences; those without a confidence have none.

    The prompts that have one are split in two at random. None where there are fewer than two of them.
    """
    confident = np.flatnonzero(outcomes.confident)
    prompts, prompt_of = np.unique(np.array(outcomes.prompt_id)[confident], return_inverse=True)
    if len(prompts) < 2:
        return None
    half_of = np.random.default_rng(seed).permutation(len(prompts))[prompt_of] % 2
    stated, correct, recalibrated = outcomes.confidence, outcomes.correct, outcomes.confidence.copy()
    for half in (0, 1):
        mine, others = confident[half_of == half], confident[half_of != half]
        recalibrated[mine] = fit(stated[others], correct[others])(stated[mine])
    return replace(outcomes, confidence=recalibrated)


def constant_at_base_rate(outcomes: Outcomes, seed: int = 0) -> Outcomes | None:
    """Every answer, whether it has a confidence or not, with the share of right ones among those to other prompts."""
    anything = np.where(outcomes.answered, 0.5, np.nan)
    return cross_fitted(replace(outcomes, confidence=anything), constant, seed)


def _logit(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(confidence, _CLIP, 1 - _CLIP)), dtype=np.float64)
