"""What counts as right, and what annotators' votes say about it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def normalise_answer(answer: str) -> str:
    """The answer as it is compared: stripped, casefolded, inner white space collapsed to one space."""
    return " ".join(answer.casefold().split())


def is_correct(answer: str, target: str) -> bool:
    """Whether the two are the same answer once normalised. No substrings: "not joy" is not "joy"."""
    return normalise_answer(answer) == normalise_answer(target)


def draw_annotator(counts: Mapping[str, int], rng: np.random.Generator) -> str:
    """One annotator's judgement, with probability proportional to the votes.

    Deterministic for the generator's state and the mapping's order; takes one draw from the generator.
    Raises ValueError where there is no vote to draw, or a negative one.
    """
    ballot = int(rng.integers(_total(counts)))
    for candidate, votes in counts.items():
        if ballot < votes:
            return candidate
        ballot -= votes
    raise AssertionError("a ballot lies below the total of the votes")


def majority(counts: Mapping[str, int]) -> str:
    """The candidate with the most votes; of several, the first in the mapping's order.

    Raises ValueError where there is no vote, or a negative one.
    """
    _total(counts)
    return max(counts, key=lambda candidate: counts[candidate])


def share(counts: Mapping[str, int], answer: str) -> float:
    """Share of the annotators who gave this answer, in [0, 1].

    Raises ValueError where there is no vote, or a negative one.
    """
    agreeing = sum(votes for candidate, votes in counts.items() if is_correct(answer, candidate))
    return agreeing / _total(counts)


def _total(counts: Mapping[str, int]) -> int:
    total = sum(counts.values())
    if total <= 0 or min(counts.values()) < 0:
        raise ValueError(
            f"got the annotator counts {dict(counts)}, expected votes of 0 or more and at least one in all; "
            "mend the row's counts, or give the row a label instead"
        )
    return total
