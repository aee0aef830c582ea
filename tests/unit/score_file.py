"""Metrics of a predictions file, as `caliber score` has them."""

from __future__ import annotations

from pathlib import Path

from cluster.predictions import read_predictions
from cluster.score import outcomes
from configs.schema import Response
from rewards.metrics import Metrics
from rewards.tasks import by_task


def score_file(
    path: Path,
    response: Response,
    annotator_draws: int = 1,
    seed: int = 0,
    bins: int = 10,
    *,
    require_confidence: bool = True,
) -> dict[str, Metrics]:
    rows = read_predictions(path)
    return by_task(outcomes(rows, response, annotator_draws, seed, require_confidence=require_confidence), bins)
