"""Metrics of a predictions file, as `caliber score` has them."""

from __future__ import annotations

from pathlib import Path

from cluster.score import read_outcomes
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
    return by_task(read_outcomes(path, response, annotator_draws, seed, require_confidence=require_confidence), bins)
