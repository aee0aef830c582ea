"""From predictions to metrics: parse each response, hold it against the truth, measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np

from cluster.predictions import PredictionRow
from configs.schema import Response
from rewards.correctness import draw_annotator, is_correct, majority, share
from rewards.outcomes import Outcomes
from rewards.parse import parse
from rewards.parts import Matcher, agreement

RIGHT = 0.5  # of a matcher that gives degrees


@dataclass(frozen=True, slots=True)
class Reading:
    """What a response says, or several together; nan where there is nothing to say."""

    answer: str | None  # None: malformed
    confidence: float
    token_probability: float = np.nan
    cause: str | None = None  # why it is malformed


def outcomes(
    rows: Sequence[PredictionRow],
    response: Response,
    annotator_draws: int,
    seed: int,
    *,
    require_confidence: bool = True,
    matches: Matcher = is_correct,
) -> Outcomes:
    """Hold each response against its label or, where there are counts, against fresh annotators.

    Every drawn annotator makes an outcome of its own, so a row with counts gives `annotator_draws`
    of them and a row with a label one. The draws depend on the seed and on the rows' counts and
    order, not on the responses: two models on the same prompts meet the same annotators.
    Without `require_confidence` (a stage-1 model) no confidence is taken, even if one is stated.
    `matches` says whether an answer is right: from one half on it is. What it raises ends the scoring;
    of a ValueError the prompt is named.
    """
    readings = [_read(row, response, require_confidence) for row in rows]
    return hold(rows, readings, annotator_draws, seed, matches=matches)


def hold(
    rows: Sequence[PredictionRow],
    readings: Sequence[Reading],
    annotator_draws: int,
    seed: int,
    *,
    matches: Matcher = is_correct,
) -> Outcomes:
    """`outcomes` of rows whose responses have been read: one reading a row, however it was come by."""
    if annotator_draws < 1:
        raise ValueError(f"got annotator_draws = {annotator_draws}, expected 1 or more")
    rng, agrees = np.random.default_rng(seed), cache(matches)
    shares = [_share_of_answer(row, reading.answer, agrees) for row, reading in zip(rows, readings, strict=True)]
    held = [
        (row, reading, share_of_it, truth)
        for row, reading, share_of_it in zip(rows, readings, shares, strict=True)
        for truth in _truths(row, annotator_draws, rng)
    ]
    return Outcomes(
        prompt_id=[row.prompt_id for row, _, _, _ in held],
        task=[row.task for row, _, _, _ in held],
        answer=[reading.answer for _, reading, _, _ in held],
        truth=[truth for _, _, _, truth in held],
        confidence=np.array([reading.confidence for _, reading, _, _ in held], dtype=np.float64),
        share=np.array([share_of_it for _, _, share_of_it, _ in held], dtype=np.float64),
        best_share=np.array([_best_share(row) for row, _, _, _ in held], dtype=np.float64),
        token_probability=np.array([reading.token_probability for _, reading, _, _ in held], dtype=np.float64),
        cause=[reading.cause for _, reading, _, _ in held],
        matched=np.array([_is_right(row, reading.answer, truth, agrees) for row, reading, _, truth in held], np.bool_),
    )


def _is_right(row: PredictionRow, answer: str | None, truth: str, matches: Matcher) -> bool:
    with _named(row):
        return answer is not None and matches(answer, truth) >= RIGHT


@contextmanager
def _named(row: PredictionRow) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # a reference that the matcher cannot read
        raise ValueError(f"prompt {row.prompt_id}: {error}") from error


def _read(row: PredictionRow, response: Response, require_confidence: bool) -> Reading:
    parsed = parse(
        row.response,
        response,
        candidates=row.candidates,
        truncated=row.truncated,
        require_confidence=require_confidence,
    )
    return Reading(
        answer=parsed.answer,
        confidence=_or_nan(parsed.confidence) if require_confidence else np.nan,
        token_probability=np.nan if parsed.answer is None else _or_nan(row.answer_probability),
        cause=None if parsed.malformed is None else parsed.malformed.value,
    )


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number


def _share_of_answer(row: PredictionRow, answer: str | None, matches: Matcher) -> float:
    if not row.counts:
        return np.nan
    with _named(row):
        return 0.0 if answer is None else agreement(answer, row.counts, matches)


def _best_share(row: PredictionRow) -> float:
    return share(row.counts, majority(row.counts)) if row.counts else np.nan


def _truths(row: PredictionRow, annotator_draws: int, rng: np.random.Generator) -> list[str]:
    if row.counts:
        return [draw_annotator(row.counts, rng) for _ in range(annotator_draws)]
    assert row.label is not None, "a row without counts has a label"
    return [row.label]
