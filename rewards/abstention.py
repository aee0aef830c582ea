"""A confidence above which answers are wrong no more often than is asked for, found on held-out answers.

Selection with guaranteed risk (Geifman & El-Yaniv 2017, arXiv 1705.08500, section 3): of the answers that a threshold
keeps, n with k wrong ones, the risk is at most

    b with  P(Binomial(n, b) <= k) = delta / THRESHOLDS      (lemma 3.1: the upper bound of Clopper & Pearson 1934)

and of all the thresholds that are tried the bound fails for some with probability delta at most (the union bound of
theorem 3.2). The one that keeps most with b no more than the risk asked for is taken. The paper searches by bisection,
so that which thresholds it tries depends on the answers it counts; here they are fixed ranks, every 20th part of the
held-out answers from the most confident down, and the union bound holds as it stands.

The guarantee is for answers drawn as the held-out ones were, each independent of the others. It does not depend on
confidences being calibrated: a confidence that knows nothing keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

THRESHOLDS = 20


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The risk that kept answers may have, and how sure that is. Raises ValueError for numbers outside (0, 1)."""

    risk: float  # share of wrong ones among them, at most
    delta: float = 0.1  # probability, over the held-out answers, that it is more

    def __post_init__(self) -> None:
        for name, value in (("risk", self.risk), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ValueError(f"got {name} = {value}, expected a number between 0 and 1, such as 0.1")

    @property
    def rows_needed(self) -> int:
        """Held-out answers that must be kept, all of them right, before a threshold can be vouched for."""
        return int(np.ceil(np.log(self.delta / THRESHOLDS) / np.log1p(-self.risk)))


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answers with a confidence above it are kept."""

    above: float  # in [0, 1]; -inf: every answer that has a confidence
    kept: int  # held-out answers above it
    wrong: int  # of those
    bound: float  # in [0, 1], what the risk of kept answers is at most, but with probability delta

    def keeps(self, confidence: float | None) -> bool:
        """Whether an answer is kept; one without a confidence is not."""
        return confidence is not None and confidence > self.above


def guaranteed_threshold(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], guarantee: Guarantee
) -> Threshold | None:
    """The threshold that keeps most of [n] answers under the guarantee; None where no threshold can be vouched for.

    Answers whose confidence is nan are malformed, and kept by none.
    """
    readable = ~np.isnan(confidence)
    order = np.argsort(-confidence[readable], kind="stable")
    stated = confidence[readable][order]  # descending
    wrong_before = np.append(0, np.cumsum(~correct[readable][order]))
    # Strictly above the next one: given that one, those above it are independent draws, tied or not.
    ranks = len(stated) * np.arange(THRESHOLDS, 0, -1) // THRESHOLDS
    above = np.append(stated, -np.inf)[ranks]
    kept = np.searchsorted(-stated, -above)
    wrong = wrong_before[kept]
    with np.errstate(invalid="ignore"):  # all wrong, or nothing kept: the bound is 1
        bounds = np.where(wrong == kept, 1.0, beta.ppf(1 - guarantee.delta / THRESHOLDS, wrong + 1, kept - wrong))
    good = np.flatnonzero(bounds <= guarantee.risk)
    if not len(good):
        return None
    most = good[0]
    return Threshold(float(above[most]), int(kept[most]), int(wrong[most]), float(bounds[most]))
