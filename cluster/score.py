"""From predictions to metrics: parse each response, hold it against the truth, measure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from cluster.predictions import ERRORS_SHOWN, PredictionRow
from configs.schema import Response
from rewards.correctness import draw_annotator, is_correct, majority, share
from rewards.outcomes import Outcomes
from rewards.parse import parse
from rewards.parts import Matcher, MatchError, agreement

logger = logging.getLogger(__name__)

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
    at_once: int = 1,
) -> Outcomes:
    """Hold each response against its label or, where there are counts, against fresh annotators.

    Every drawn annotator makes an outcome of its own, so a row with counts gives `annotator_draws`
    of them and a row with a label one. The draws depend on the seed and on the rows' counts and
    order, not on the responses: two models on the same prompts meet the same annotators.
    Without `require_confidence` (a stage-1 model) no confidence is taken, even if one is stated.
    `matches` says whether an answer is right: from one half on it is. It is asked of `at_once` rows at a time, more
    than one where it waits for others and may be called from several threads. A row on whose answer it comes to no
    verdict (MatchError) has no outcome; which those are is logged, and `unscored` in what is returned. Of a ValueError
    the prompt is named.
    """
    readings = [_read(row, response, require_confidence) for row in rows]
    return hold(rows, readings, annotator_draws, seed, matches=matches, at_once=at_once)


def hold(
    rows: Sequence[PredictionRow],
    readings: Sequence[Reading],
    annotator_draws: int,
    seed: int,
    *,
    matches: Matcher = is_correct,
    at_once: int = 1,
) -> Outcomes:
    """`outcomes` of rows whose responses have been read: one reading a row, however it was come by."""
    if annotator_draws < 1:
        raise ValueError(f"got annotator_draws = {annotator_draws}, expected 1 or more")
    rng, agrees = np.random.default_rng(seed), cache(matches)
    failures = _failures(rows, [reading.answer for reading in readings], agrees, at_once)
    # Drawn for every row: which are left out must not change the annotators that the others meet.
    truths = [_truths(row, annotator_draws, rng) for row in rows]
    shares = {
        number: _share_of_answer(row, reading.answer, agrees)
        for number, (row, reading) in enumerate(zip(rows, readings, strict=True))
        if number not in failures
    }
    of = [number for number in shares for _ in truths[number]]  # of each outcome: its row
    truth = [one for number in shares for one in truths[number]]
    answer = [readings[i].answer for i in of]
    return Outcomes(
        prompt_id=[rows[i].prompt_id for i in of],
        task=[rows[i].task for i in of],
        answer=answer,
        truth=truth,
        confidence=np.array([readings[i].confidence for i in of], dtype=np.float64),
        share=np.array([shares[i] for i in of], dtype=np.float64),
        best_share=np.array([_best_share(rows[i]) for i in of], dtype=np.float64),
        token_probability=np.array([readings[i].token_probability for i in of], dtype=np.float64),
        cause=[readings[i].cause for i in of],
        matched=np.array(
            [said is not None and agrees(said, one) >= RIGHT for said, one in zip(answer, truth, strict=True)], np.bool_
        ),
        unscored={number: rows[number].task for number in failures},
        response=of,
    )


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


def _failures(
    rows: Sequence[PredictionRow], answers: Sequence[str | None], matches: Matcher, at_once: int
) -> dict[int, MatchError]:
    """Why the matcher comes to no verdict on a row's answer, by the row's place. It is asked all that it will be."""
    ask = partial(_failure, matches=matches)
    if at_once == 1:
        found = list(map(ask, rows, answers))
    else:
        with ThreadPoolExecutor(at_once) as threads:
            found = list(threads.map(ask, rows, answers))
    failures = {number: error for number, error in enumerate(found) if error is not None}
    for number, error in list(failures.items())[:ERRORS_SHOWN]:
        logger.warning("a response to %r is left out: %s", rows[number].prompt_id, error)
    if len(failures) > ERRORS_SHOWN:
        logger.warning("%d of %d responses are left out in all", len(failures), len(rows))
    return failures


def _failure(row: PredictionRow, answer: str | None, matches: Matcher) -> MatchError | None:
    if answer is None:  # which needs no verdict
        return None
    voted_for = [name for name, votes in row.counts.items() if votes]
    try:
        for reference in voted_for or filter(None, [row.label]):
            matches(answer, reference)
    except MatchError as error:
        return error
    except ValueError as error:  # a reference that the matcher cannot read
        raise ValueError(f"prompt {row.prompt_id}: {error}") from error
    return None


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number


def _share_of_answer(row: PredictionRow, answer: str | None, matches: Matcher) -> float:
    if not row.counts:
        return np.nan
    return 0.0 if answer is None else agreement(answer, row.counts, matches)


def _best_share(row: PredictionRow) -> float:
    return share(row.counts, majority(row.counts)) if row.counts else np.nan


def _truths(row: PredictionRow, annotator_draws: int, rng: np.random.Generator) -> list[str]:
    if row.counts:
        return [draw_annotator(row.counts, rng) for _ in range(annotator_draws)]
    assert row.label is not None, "a row without counts has a label"
    return [row.label]
