"""Several responses to one prompt made into one answer and one confidence.

The answer is the one with the largest sum of confidences: confidence-informed self-consistency (Taubenfeld et al. 2025,
arXiv 2502.06233), with the confidence itself as the weight. The paper's softmax over the responses has a
temperature that would have to be fitted; a calibrated confidence has its scale already.

Its confidence is a linear opinion pool (Stone 1961) of the responses. Each is taken as a distribution over answers: its
confidence on its own answer, and what is left evenly on the others.

    confidence of a = mean over the responses of  c              where the response's answer is a
                                                  (1 - c) / m    where it is another; m: answers other than its own

So one response keeps its confidence, responses that agree have their mean, and dissent takes from it. m is the number
of candidates less one; where any answer goes, that of the different answers given: the others, and one nobody gave.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewards.correctness import normalise_answer

_DECIMALS = 9  # sums are rounded to these: 0.1 + 0.2 is no more than 0.3


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one well-formed response says."""

    answer: str
    confidence: float  # in [0, 1]


@dataclass(frozen=True, slots=True)
class Vote:
    """What the responses say together."""

    answer: str  # as the first response that gives it spells it
    confidence: float  # in [0, 1]
    first: int  # number of that response
    votes: Mapping[str, float]  # by answer, in the order in which they were given first


def confidence_vote(
    ballots: Sequence[Ballot], candidates: int, same: Callable[[str], Hashable] = normalise_answer
) -> Vote:
    """The answer with the most confidence behind it; of several, the one that was given first.

    `candidates` is the number of answers allowed, 0 where any is. Answers for which `same` gives the same are one.
    Raises ValueError without ballots.
    """
    place = _place(ballots, same)
    confidence = np.array([ballot.confidence for ballot in ballots])
    votes = np.bincount(place, confidence).astype(np.float64)
    winner = _first_of_most(votes)
    others = max(candidates - 1 if candidates else len(votes), 1)
    held = np.where(place == winner, confidence, (1 - confidence) / others)
    return _vote(ballots, place, votes, winner, round(float(held.mean()), _DECIMALS))


def majority_vote(ballots: Sequence[Ballot], same: Callable[[str], Hashable] = normalise_answer) -> Vote:
    """The answer given most often, with its share of the responses as the confidence: plain self-consistency.

    What is stated is not looked at (Wang et al. 2022, arXiv 2203.11171). Of several, the one that was given first.
    Raises ValueError without ballots.
    """
    place = _place(ballots, same)
    votes = np.bincount(place).astype(np.float64)
    winner = _first_of_most(votes)
    return _vote(ballots, place, votes, winner, float(votes[winner] / votes.sum()))


def _place(ballots: Sequence[Ballot], same: Callable[[str], Hashable]) -> NDArray[np.intp]:
    """[n] which answer each ballot gives, numbered as they were given first."""
    if not ballots:
        raise ValueError("got no ballots, expected at least one well-formed response")
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(same(ballot.answer), len(number)) for ballot in ballots], dtype=np.intp)


def _first_of_most(votes: NDArray[np.float64]) -> int:
    return int(np.argmax(np.round(votes, _DECIMALS)))


def _vote(
    ballots: Sequence[Ballot], place: NDArray[np.intp], votes: NDArray[np.float64], winner: int, confidence: float
) -> Vote:
    _, firsts = np.unique(place, return_index=True)
    spelled = [ballots[first].answer for first in firsts]
    return Vote(spelled[winner], confidence, int(firsts[winner]), dict(zip(spelled, votes.tolist(), strict=True)))
