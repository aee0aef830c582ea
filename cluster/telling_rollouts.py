"""Of an evaluation's responses the few that tell most: the best, the worst, and the most overconfident."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.predictions import PredictionRow
from rewards.outcomes import Outcomes

ROWS_OF_A_KIND = 8  # a table to look through, whatever the size of the evaluation


@dataclass(frozen=True, slots=True)
class Answered:
    """A response, and how often it was right under the judgements it was held against."""

    prompt_id: str
    task: str
    response: str
    answer: str | None
    confidence: float | None
    malformed: str | None  # cause
    right: float  # share of its judgements
    brier: float | None  # mean over them; None: no confidence
    excess: float | None  # its confidence less the share of all its prompt's judgements that were right


def answered(rows: Sequence[PredictionRow], held: Outcomes, annotator_draws: int) -> list[Answered]:
    """Each response that is scored, with its outcomes.

    `held` has them in the rows' order, one for a label and one for each draw.
    """
    rows = [row for place, row in enumerate(rows) if place not in held.unscored]
    sizes = [annotator_draws if row.counts else 1 for row in rows]
    ends = np.cumsum(sizes)
    correct = held.correct
    of_prompt: dict[str, list[bool]] = {}
    for prompt_id, right in zip(held.prompt_id, correct, strict=True):
        of_prompt.setdefault(prompt_id, []).append(bool(right))
    return [
        _answered(row, held, end - 1, correct[end - size : end], float(np.mean(of_prompt[row.prompt_id])))
        for row, size, end in zip(rows, sizes, ends.tolist(), strict=True)
    ]


def telling(found: Sequence[Answered]) -> list[tuple[str, Answered]]:
    """At most `ROWS_OF_A_KIND` of each kind, of a prompt one at most, with the kind's name.

    best: right by most judges, and of the lowest Brier score; worst: malformed, then of the highest Brier score;
    overconfident: where the confidence is farthest above how often the prompt's responses are right.
    """
    stated = [one for one in found if one.brier is not None]
    malformed = [one for one in found if one.malformed is not None]
    return [
        *_first("best", [one for one in stated if one.right > 0.5], lambda one: one.brier or 0.0),
        *_first("worst", [*malformed, *stated], lambda one: -2.0 if one.brier is None else -one.brier),
        *_first("overconfident", [one for one in stated if (one.excess or 0) > 0], lambda one: -(one.excess or 0.0)),
    ]


def _first(kind: str, among: Sequence[Answered], order: Callable[[Answered], float]) -> list[tuple[str, Answered]]:
    of_prompt: dict[str, Answered] = {}
    for one in sorted(among, key=order):
        of_prompt.setdefault(one.prompt_id, one)
    return [(kind, one) for one in [*of_prompt.values()][:ROWS_OF_A_KIND]]


def _answered(row: PredictionRow, held: Outcomes, at: int, correct: NDArray[np.bool_], prompt_right: float) -> Answered:
    """A response whose last outcome is `at`; its own outcomes, and the share of all its prompt's that are right."""
    confidence = None if np.isnan(held.confidence[at]) else float(held.confidence[at])
    return Answered(
        prompt_id=row.prompt_id,
        task=row.task,
        response=row.response,
        answer=held.answer[at],
        confidence=confidence,
        malformed=None if held.cause is None else held.cause[at],
        right=float(correct.mean()),
        brier=None if confidence is None else float(((confidence - correct) ** 2).mean()),
        excess=None if confidence is None else confidence - prompt_right,
    )
