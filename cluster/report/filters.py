"""The responses worth a look: named filters that the report and the viewer share."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line lists the filters, and numpy would make it slow to answer
    from cluster.report.responses import ResponseRow

CONFIDENT = 0.8
DOUBTFUL = 0.2


class Filter(StrEnum):
    """What a response is, besides others it may be."""

    CONFIDENT_WRONG = "confident-wrong"
    DOUBTFUL_RIGHT = "doubtful-right"
    MALFORMED = "malformed"
    SABOTAGE = "sabotage"

    @property
    def heading(self) -> str:
        """Its name on a page."""
        return _HEADINGS[self]

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


_HEADINGS = {
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
