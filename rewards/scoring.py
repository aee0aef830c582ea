"""Strictly proper scoring rules for a stated confidence; higher is better.

Each rule is a pair S(c, 1), S(c, 0): what confidence c earns if the answer was right, and if it was
wrong. A fractional target i, the probability or share with which the answer is right, is scored by

    S(c, i) = i * S(c, 1) + (1 - i) * S(c, 0)     log, spherical
    S(c, i) = -(c - i)^2                          Brier

Both are best at c = i, and of a random target best at its mean, so that group shares can stand in for
single outcomes. Brier's differs from its expectation, -(c - i)^2 - i (1 - i), by a term without c: the gradient is
the same, and the score says how far c is from the share and not how much the annotators disagree.

Formulas: Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from configs.schema import ScoringRule

Floats = NDArray[np.float64]


class Range(NamedTuple):
    """Least and greatest value a rule can take."""

    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Scorer:
    """One of the rules with its setting, callable on scalars and on arrays of any one shape."""

    rule: ScoringRule
    clip: float  # used by the log score alone

    def __call__(self, confidence: ArrayLike, target: ArrayLike) -> Floats:
        """Scores of confidences in [0, 1] against targets in [0, 1]; ValueError outside of them."""
        match self.rule:
            case ScoringRule.BRIER:
                return brier(confidence, target)
            case ScoringRule.LOG:
                return clipped_log(confidence, target, self.clip)
            case ScoringRule.UNCLIPPED_LOG:
                return unclipped_log(confidence, target)
            case ScoringRule.SPHERICAL:
                return spherical(confidence, target)

    @property
    def range(self) -> Range:
        """Taken at the corners: a proper score only improves as the confidence nears the outcome."""
        corners = self([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0])
        return Range(float(corners.min()), float(corners.max()))

    def honest(self, probability: ArrayLike) -> Floats:
        """Expected score of a confidence that states the true probability: the best there is."""
        stated = np.asarray(probability, dtype=np.float64)
        return _expectation(self(stated, np.ones_like(stated)), self(stated, np.zeros_like(stated)), stated)


def brier(confidence: ArrayLike, target: ArrayLike) -> Floats:
    """-(c - i)^2 in [-1, 0]; strictly proper on [0, 1]."""
    stated, right = _checked(confidence, target)
    return np.asarray(-((stated - right) ** 2))


def clipped_log(confidence: ArrayLike, target: ArrayLike, clip: float) -> Floats:
    """Ln c if right, ln(1 - c) if wrong, with c first clipped to [clip, 1 - clip].

    Strictly proper on [clip, 1 - clip]; beyond, every confidence scores as the nearer end does.
    Unclipped it has no floor: no malformed response could be worse, and no weight of correctness
    would outweigh sabotage. Raises ValueError unless 0 < clip < 0.5.
    """
    if not 0 < clip < 0.5:
        raise ValueError(f"got a clip of {clip}, expected 0 < clip < 0.5; change rewards.log_clip")
    stated, right = _checked(confidence, target)
    # Both clipped by themselves, so that the floor is the same to the last bit for right and wrong.
    when_right, when_wrong = (np.log(np.clip(given, clip, 1 - clip)) for given in (stated, 1 - stated))
    return _expectation(when_right, when_wrong, right)


def unclipped_log(confidence: ArrayLike, target: ArrayLike) -> Floats:
    """Ln c if right, ln(1 - c) if wrong, -inf included; strictly proper on [0, 1], and without a floor."""
    stated, right = _checked(confidence, target)
    with np.errstate(divide="ignore"):
        return _expectation(np.log(stated), np.log(1 - stated), right)


def spherical(confidence: ArrayLike, target: ArrayLike) -> Floats:
    """C / |(c, 1 - c)| if right, (1 - c) / |(c, 1 - c)| if wrong, in [0, 1]; strictly proper on [0, 1]."""
    stated, right = _checked(confidence, target)
    length = np.hypot(stated, 1 - stated)
    return _expectation(stated / length, (1 - stated) / length, right)


def sabotage_bound(rule: ScoringRule, clip: float) -> float:
    """S(0, 0) - S(0, 1): what a sure wrong answer, owned up to, earns over a right one that was denied.

    One reward a * i + b * S(c, i) for the whole response is safe from sabotage if and only if
    a >= b * this. 1 for Brier and spherical, ln((1 - clip) / clip) for log, infinite for the unclipped log.
    """
    owned_up, denied = Scorer(rule, clip)([0.0, 0.0], [0.0, 1.0])
    return float(owned_up - denied)


def _expectation(when_right: Floats, when_wrong: Floats, target: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # 0 * -inf, in place of which stands what is certain
        mean = target * when_right + (1 - target) * when_wrong
    return np.where(target == 0, when_wrong, np.where(target == 1, when_right, mean))


def _checked(confidence: ArrayLike, target: ArrayLike) -> tuple[Floats, Floats]:
    stated = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(target, dtype=np.float64)
    for name, values in (("confidence", stated), ("target", right)):
        outside = ~((values >= 0) & (values <= 1))  # true for NaN
        if outside.any():
            raise ValueError(f"got a {name} of {values[outside].flat[0]}, expected numbers in [0, 1]")
    return stated, right
