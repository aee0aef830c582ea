"""A run's evaluations: metrics and baselines as they were written, and the responses behind them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.matchers import opened
from cluster.metrics_files import read_baselines, read_metrics
from cluster.predictions import PredictionRow, read_predictions
from cluster.report.responses import ResponseRow
from cluster.report.suspects import with_suspects
from cluster.run_folder import RunFolder
from cluster.score import outcomes
from configs.schema import Recipe
from rewards.matching import sameness
from rewards.metrics import Metrics
from rewards.outcomes import Outcomes
from rewards.parse import parse
from rewards.parts import Matcher
from rewards.tasks import OVERALL
from rollout.scorer_process import UnusableScorer

logger = logging.getLogger(__name__)

STAGES = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One stage on one evaluation file."""

    stage: int
    name: str  # of the file, as the recipe calls it
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    bins: int  # of the calibration errors
    outcomes: Outcomes | None  # None: nothing here says again which answers are right
    unjudged: str | None  # why there are none
    rows: tuple[ResponseRow, ...]

    @property
    def title(self) -> str:
        """Its name among others."""
        return _title(self.stage, self.name)


def read_evaluations(run: RunFolder, recipe: Recipe) -> list[Evaluation]:
    """Those that there are: file by file, stage by stage. Raises PredictionsError for a bad file.

    A scorer of the recipe's own that cannot be made here is told of, and they are read without their outcomes.
    """
    places = [(name, stage, run.stage(stage).evaluation(name)) for name in recipe.data.evaluation for stage in STAGES]
    done = [place for place in places if (place[-1] / "metrics.json").exists()]
    if not done:
        return []
    with ExitStack() as stack:
        matches = _matcher(recipe, stack)
        return [_evaluation(folder, stage, name, recipe, matches) for name, stage, folder in done]


def _matcher(recipe: Recipe, stack: ExitStack) -> Matcher | str:
    """What says again which answers are right, for as long as the stack is open; or why nothing does."""
    if recipe.rewards.judge is not None:
        return "a judge said what is right, and is not asked again"
    try:
        return stack.enter_context(opened(recipe.rewards, recipe.reward_service))
    except UnusableScorer as error:
        logger.warning(
            "%s\nEvaluations are shown without its verdicts. Where it was not found, give the command in the folder "
            "that has the scorer's module, or put that folder on PYTHONPATH.",
            error,
        )
        return f"the scorer {recipe.rewards.correctness} says what is right, and could not be made here"


def _evaluation(folder: Path, stage: int, name: str, recipe: Recipe, matches: Matcher | str) -> Evaluation:
    predictions = read_predictions(folder / "predictions.jsonl")
    unjudged = matches if isinstance(matches, str) else None
    held = None if isinstance(matches, str) else _held(predictions, stage, recipe, matches)
    rows = list(_rows(predictions, held, stage, name, recipe))
    return Evaluation(
        stage=stage,
        name=name,
        metrics=read_metrics(folder / "metrics.json")[OVERALL],
        baselines=read_baselines(folder),
        bins=recipe.evaluation.bins,
        outcomes=held,
        unjudged=unjudged,
        rows=tuple(with_suspects(rows, sameness(recipe.rewards.correctness))),
    )


def _held(predictions: list[PredictionRow], stage: int, recipe: Recipe, matches: Matcher) -> Outcomes:
    """The outcomes that the evaluation's metrics were made of."""
    settings = recipe.evaluation
    return outcomes(
        predictions,
        recipe.response,
        settings.annotator_draws,
        settings.seed,
        require_confidence=stage != 1,
        matches=matches,
    )


def _rows(
    predictions: list[PredictionRow], held: Outcomes | None, stage: int, name: str, recipe: Recipe
) -> Iterator[ResponseRow]:
    correct = None if held is None else held.correct
    unscored = {} if held is None else held.unscored
    place = 0  # of the row's first outcome
    for number, row in enumerate(predictions):
        parsed = parse(
            row.response,
            recipe.response,
            candidates=row.candidates,
            truncated=row.truncated,
            require_confidence=stage != 1,
        )
        outcomes_of_it = 0 if number in unscored else recipe.evaluation.annotator_draws if row.counts else 1
        ends = place + outcomes_of_it
        yield ResponseRow(
            source=_title(stage, name),
            file=recipe.data.evaluation[name],
            group=row.prompt_id,
            prompt_id=row.prompt_id,
            target=held.truth[place] if held is not None and ends == place + 1 else None,
            text=row.response,
            answer=parsed.answer,
            confidence=parsed.confidence if stage != 1 else None,
            correct=None if correct is None or parsed.answer is None else _mean(correct[place:ends]),
            malformed=None if parsed.malformed is None else parsed.malformed.value,
            answer_span=parsed.answer_span,
            confidence_span=parsed.confidence_span,
        )
        place = ends


def _mean(correct: NDArray[np.bool_]) -> float | None:
    return float(np.mean(correct)) if len(correct) else None


def _title(stage: int, name: str) -> str:
    return f"stage {stage}, {name}"
