"""A run's evaluations: metrics and baselines as they were written, and the responses behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.matchers import opened
from cluster.metrics_files import read_baselines, read_metrics
from cluster.predictions import PredictionRow, read_predictions
from cluster.report.responses import ResponseRow
from cluster.report.suspects import with_suspects
from cluster.run_folder import RunFolder
from cluster.score import outcomes
from configs.schema import Recipe
from rewards.metrics import Metrics
from rewards.outcomes import Outcomes
from rewards.parse import parse
from rewards.tasks import OVERALL

STAGES = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One stage on one evaluation file."""

    stage: int
    name: str  # of the file, as the recipe calls it
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    bins: int  # of the calibration errors
    outcomes: Outcomes | None  # None: only a judge could say again which answers are right
    rows: tuple[ResponseRow, ...]

    @property
    def title(self) -> str:
        """Its name among others."""
        return f"stage {self.stage}, {self.name}"


def read_evaluations(run: RunFolder, recipe: Recipe) -> list[Evaluation]:
    """Those that there are: file by file, stage by stage.

    Raises PredictionsError for a bad file, UnusableScorer for a scorer of the recipe's own that is gone.
    """
    places = [(name, stage, run.stage(stage).evaluation(name)) for name in recipe.data.evaluation for stage in STAGES]
    return [
        _evaluation(folder, stage, name, recipe) for name, stage, folder in places if (folder / "metrics.json").exists()
    ]


def _evaluation(folder: Path, stage: int, name: str, recipe: Recipe) -> Evaluation:
    predictions = read_predictions(folder / "predictions.jsonl")
    held = None if recipe.rewards.judge is not None else _held(predictions, stage, recipe)
    title = f"stage {stage}, {name}"
    return Evaluation(
        stage=stage,
        name=name,
        metrics=read_metrics(folder / "metrics.json")[OVERALL],
        baselines=read_baselines(folder),
        bins=recipe.evaluation.bins,
        outcomes=held,
        rows=tuple(with_suspects(list(_rows(title, recipe.data.evaluation[name], predictions, held, stage, recipe)))),
    )


def _held(predictions: list[PredictionRow], stage: int, recipe: Recipe) -> Outcomes:
    """The outcomes that the evaluation's metrics were made of."""
    settings = recipe.evaluation
    with opened(recipe.rewards, recipe.reward_service) as matches:
        return outcomes(
            predictions,
            recipe.response,
            settings.annotator_draws,
            settings.seed,
            require_confidence=stage != 1,
            matches=matches,
        )


def _rows(
    title: str, file: str, predictions: list[PredictionRow], held: Outcomes | None, stage: int, recipe: Recipe
) -> Iterator[ResponseRow]:
    correct = None if held is None else held.correct
    place = 0  # of the row's first outcome
    for row in predictions:
        parsed = parse(
            row.response,
            recipe.response,
            candidates=row.candidates,
            truncated=row.truncated,
            require_confidence=stage != 1,
        )
        ends = place + (recipe.evaluation.annotator_draws if row.counts else 1)
        yield ResponseRow(
            source=title,
            file=file,
            group=row.prompt_id,
            prompt_id=row.prompt_id,
            target=held.truth[place] if held is not None and ends == place + 1 else None,
            text=row.response,
            answer=parsed.answer,
            confidence=parsed.confidence if stage != 1 else None,
            correct=None if correct is None or parsed.answer is None else float(np.mean(correct[place:ends])),
            malformed=None if parsed.malformed is None else parsed.malformed.value,
            answer_span=parsed.answer_span,
            confidence_span=parsed.confidence_span,
        )
        place = ends
