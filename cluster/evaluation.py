"""Evaluate a model: generate with vLLM, write predictions.jsonl and metrics.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.pool import RolloutPool
from cluster.predictions import PredictionRow, write_predictions
from cluster.sampling import sample_responses
from cluster.score import outcomes
from configs.schema import Recipe
from rewards.metrics import Metrics, by_task
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, Group


async def evaluate(
    recipe: Recipe,
    pool: RolloutPool,
    files: Mapping[str, tuple[Sequence[Prompt], Path]],
    *,
    temperature: float | None = None,
    require_confidence: bool = True,
) -> dict[str, dict[str, Metrics]]:
    """Metrics by evaluation file and task; `files` gives each file's prompts and the folder to write into."""
    settings = recipe.evaluation
    everything = [prompt for prompts, _ in files.values() for prompt in prompts]
    sampling = SamplingSettings(settings.temperature if temperature is None else temperature, settings.response_tokens)
    groups = await sample_responses(pool, everything, settings.samples_per_prompt, sampling)
    found, start = {}, 0
    for name, (prompts, folder) in files.items():
        own = groups[start : start + len(prompts)]
        start += len(prompts)
        rows = [row for prompt, group in zip(prompts, own, strict=True) for row in _rows(prompt, group)]
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(folder / "predictions.jsonl", rows)  # first: scoring may fail, generating again costs more
        held = outcomes(
            rows,
            recipe.response,
            settings.annotator_draws,
            settings.seed,
            require_confidence=require_confidence,
        )
        found[name] = by_task(held, settings.bins)
        write_metrics(folder / "metrics.json", found[name])
    return found


def write_metrics(path: Path, metrics: Mapping[str, Metrics]) -> None:
    """Metrics by task as JSON; undefined ones are null."""
    text = json.dumps({task: dataclasses.asdict(found) for task, found in metrics.items()}, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_metrics(path: Path) -> dict[str, Metrics]:
    """What `write_metrics` wrote."""
    return {task: Metrics(**found) for task, found in json.loads(path.read_text(encoding="utf-8")).items()}


def _rows(prompt: Prompt, group: Group) -> list[PredictionRow]:
    return [
        PredictionRow(
            prompt_id=prompt.prompt_id,
            task=prompt.task,
            candidates=prompt.candidates,
            label=prompt.label,
            counts=prompt.counts,
            response=trajectory.sample.text,
            truncated=trajectory.sample.finish_reason is FinishReason.LENGTH,
        )
        for trajectory in group.trajectories
    ]
