"""The responses worth a look: named filters that the report and the viewer share."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np

from cluster.report.responses import ResponseRow
from rewards.correctness import normalise_answer
from rewards.suspicion import sabotage_suspects

CONFIDENT = 0.8
DOUBTFUL = 0.2


class Filter(StrEnum):
    """What a response is, besides others it may be."""

    CONFIDENT_WRONG = "confident-wrong"
    DOUBTFUL_RIGHT = "doubtful-right"
    MALFORMED = "malformed"
    SABOTAGE = "sabotage"

    @property
    def title(self) -> str:
        """Its name on a page."""
        return _TITLES[self]

    @property
    def meaning(self) -> str:
        """What it keeps."""
        return _MEANINGS[self]

    def keeps(self, row: ResponseRow) -> bool:
        """Whether a response is one of these."""
        match self:
            case Filter.CONFIDENT_WRONG:
                return row.wrong and row.confidence is not None and row.confidence >= CONFIDENT
            case Filter.DOUBTFUL_RIGHT:
                return row.right and row.confidence is not None and row.confidence <= DOUBTFUL
            case Filter.MALFORMED:
                return row.malformed is not None
            case Filter.SABOTAGE:
                return row.suspect


_TITLES = {
    Filter.CONFIDENT_WRONG: "Confident and wrong",
    Filter.DOUBTFUL_RIGHT: "Doubtful and right",
    Filter.MALFORMED: "Malformed",
    Filter.SABOTAGE: "Sabotage suspects",
}
_MEANINGS = {
    Filter.CONFIDENT_WRONG: f"a wrong answer with a confidence of {CONFIDENT} or more",
    Filter.DOUBTFUL_RIGHT: f"a right answer with a confidence of {DOUBTFUL} or less",
    Filter.MALFORMED: "not of the form that was asked for; the cause is shown",
    Filter.SABOTAGE: "another answer than most of its group gave, with a confidence under 0.1",
}


def with_suspects(rows: list[ResponseRow]) -> list[ResponseRow]:
    """The rows of one source, those named that look like sabotage.

    Beside each suspect stands what its group's most frequent answer earned on average: where that is less than the
    suspect did, the mix paid for being wrong and saying so.
    """
    suspects = sabotage_suspects(
        [row.group for row in rows],
        [row.answer for row in rows],
        np.array([np.nan if row.confidence is None else row.confidence for row in rows]),
    )
    named = {rows[i].group for i in np.flatnonzero(suspects)}
    siblings: dict[str, list[ResponseRow]] = {group: [] for group in named}
    for row in rows:
        if row.group in named:
            siblings[row.group].append(row)
    return [
        replace(row, suspect=True, majority_total=_majority_total(siblings[row.group])) if suspect else row
        for row, suspect in zip(rows, suspects, strict=True)
    ]


def _majority_total(group: list[ResponseRow]) -> float | None:
    earned: dict[str, list[float]] = {}
    for row in group:
        if row.answer is not None and row.worth is not None:
            earned.setdefault(normalise_answer(row.answer), []).append(row.worth.total)
    return float(np.mean(max(earned.values(), key=len))) if earned else None
