"""Answering only where the confidence is high: what is wrong among the answers that are kept.

At coverage k/n the k most confident of n responses are kept; their risk is the share that is wrong.

    AURC        = mean over k = 1..n of the risk at coverage k/n
    excess AURC = AURC - that of an order with all right answers first    (both: Geifman et al. 2019)

Stated confidences are mostly ties, and a curve that breaks them by row order would depend on it. Here AURC is its
expected value over all orders of the tied, and a coverage at risk cuts between confidences alone, as a threshold does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from rewards.tally import Tally


def aurc(tally: Tally) -> NDArray[np.float64]:
    """[...] area under the risk-coverage curve, in [0, 1], of [..., V] counts; nan where nothing is counted."""
    return _mean_risk(tally.stated[..., ::-1], tally.wrong[..., ::-1])


def excess_aurc(tally: Tally) -> NDArray[np.float64]:
    """[...] area above the best order of the same answers, >= 0, of [..., V] counts; nan where nothing is counted."""
    right, wrong = tally.right.sum(-1), tally.wrong.sum(-1)
    best = _mean_risk(np.stack([right, wrong], -1), np.stack([np.zeros_like(wrong), wrong], -1))
    return np.maximum(aurc(tally) - best, 0)  # below 0 by rounding alone


def risk_by_coverage(tally: Tally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and risk, [..., V] each, of every threshold that [..., V] counts allow, the least coverage first."""
    kept, wrong = _kept(tally)
    risk = np.divide(wrong, kept, out=np.full_like(kept, np.nan), where=kept > 0)
    return kept / kept[..., -1:], risk


def coverage_at_risk(tally: Tally, risk: float) -> NDArray[np.float64]:
    """[...] largest share, of [..., V] counts, that a threshold can keep with at most `risk` of it wrong; 0 if none."""
    kept, wrong = _kept(tally)
    return np.where(wrong <= risk * kept, kept, 0).max(-1) / kept[..., -1]


def _kept(tally: Tally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[..., V] answers that each threshold keeps, from the most confident on, and those of them that are wrong."""
    return tally.stated[..., ::-1].cumsum(-1), tally.wrong[..., ::-1].cumsum(-1)


def accuracy_at_coverage(tally: Tally, coverage: float) -> NDArray[np.float64]:
    """[...] share of right answers among the most confident `coverage`, in (0, 1], of [..., V] counts.

    Of the tied that only a part of is wanted, it is what a random part has in expectation. nan: nothing is counted.
    """
    stated, right = tally.stated[..., ::-1], tally.right[..., ::-1]
    wanted = coverage * stated.sum(-1, keepdims=True)
    taken = np.clip(wanted - (stated.cumsum(-1) - stated), 0, stated)
    rate = np.divide(right, stated, out=np.zeros_like(stated), where=stated > 0)
    found, of = (taken * rate).sum(-1), wanted[..., 0]
    return np.divide(found, of, out=np.full_like(of, np.nan), where=of > 0)


def _mean_risk(stated: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    """[...] AURC of values [..., V] from the most confident to the least.

    With m responses and e errors before a value that s state, g of them wrong, the expected errors after j of
    the s are e + j g/s. The sum over j of (e + j g/s) / (m + j) is g + (e - m g/s) (1/(m+1) + ... + 1/(m+s)).
    """
    before, errors_before = stated.cumsum(-1) - stated, wrong.cumsum(-1) - wrong
    rate = np.divide(wrong, stated, out=np.zeros_like(stated), where=stated > 0)
    reciprocals = digamma(before + stated + 1) - digamma(before + 1)
    risks = wrong + (errors_before - rate * before) * reciprocals
    total = stated.sum(-1)
    return np.divide(risks.sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)
