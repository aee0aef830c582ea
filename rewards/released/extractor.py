"""From a released result row to what EmoCaliber's evaluator is given, with the confidence its extractor would read.

The released code goes through three files: merging leaves out rows with an `error`, extraction reads the confidence out
of the response into the row, evaluation takes it from there. `take` does the first two for a row that has no
`confidence` yet; a row that has one has been through both, and is taken at its word.

The extractor is not the training reward's parser: no match spans lines, braces are deleted first, any number goes
(85, -0.1, nan), and a row whose confidence `float` refuses is left out, which takes it out of the accuracy too.

Rows of types the released evaluator crashes on, some of them not on every path, are ValueErrors here: candidates that
are not a list of names (or text, which counts by letter), a label, task or response that is not text, a confidence
that is not a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rewards.released.tags import first_on_one_line

NO_TASK = "unknown"

_WITHOUT_BRACES = str.maketrans("", "", "{}")


class LeftOut(StrEnum):
    """Why a row is not evaluated."""

    ERROR = "an error is recorded"
    UNREADABLE = "the confidence cannot be read"  # nor the response, where it is not text


@dataclass(frozen=True, slots=True)
class Row:
    """One response and what the evaluator holds it against."""

    task: str  # "unknown" where the row has none
    candidates: tuple[str, ...]
    label: str  # as in the data; "" where the row has none
    response: str
    confidence: float | None  # any number, nan and inf too; None where the response has no such tag


def take(item: object) -> Row | LeftOut:
    """The row of a line's parsed JSON; ValueError where the released evaluator would crash on it."""
    if not isinstance(item, Mapping):
        return LeftOut.UNREADABLE  # as the extractor does: it has no response
    if "confidence" in item:
        return _row(item, _number(item["confidence"]))
    if item.get("error") is not None:
        return LeftOut.ERROR
    try:
        confidence = stated_confidence(item.get("response", ""))
    except (TypeError, ValueError):
        return LeftOut.UNREADABLE
    return _row(item, confidence)


def stated_confidence(response: str) -> float | None:
    """What the first `<confidence>` on one line holds, without braces; None where there is none.

    Raises ValueError where that is no number to `float`, TypeError for a response that is not text.
    """
    if not isinstance(response, str):
        raise TypeError(f"got a response of type {type(response).__name__}, expected text")
    content = first_on_one_line(response, "confidence")
    return None if content is None else float(content.translate(_WITHOUT_BRACES))


def _row(item: Mapping[str, object], confidence: float | None) -> Row:
    return Row(
        task=_text(item, "task", NO_TASK),
        candidates=_names(item.get("candidates")),
        label=_text(item, "ground_truth", ""),
        response=_text(item, "response", ""),
        confidence=confidence,
    )


def _text(item: Mapping[str, object], key: str, missing: str) -> str:
    value = item.get(key, missing)
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r:.200}, expected text; mend or remove the row")
    return value


def _names(candidates: object) -> tuple[str, ...]:
    if isinstance(candidates, str | list) and all(isinstance(name, str) for name in candidates):
        return tuple(candidates)  # text by its letters
    raise ValueError(f"candidates is {candidates!r:.200}, expected a list of names; mend or remove the row")


def _number(confidence: object) -> float | None:
    if confidence is None:
        return None
    if isinstance(confidence, int | float):  # true is 1
        try:
            return float(confidence)
        except OverflowError:
            pass
    raise ValueError(
        f"confidence is {confidence!r:.200}, expected a number or null; remove it to have it read from the response"
    )
