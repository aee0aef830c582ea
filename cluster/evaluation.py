"""Evaluate a model: generate with vLLM, write predictions.jsonl, metrics.json and baselines.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cluster.matchers import opened
from cluster.metrics_files import write_baselines, write_metrics
from cluster.pool import RolloutPool
from cluster.predictions import PredictionRow, write_predictions
from cluster.sampling import sample_responses
from cluster.score import outcomes
from configs.schema import Recipe, Response
from rewards.baselines import baselines
from rewards.matching import sameness
from rewards.metrics import Metrics
from rewards.outcomes import Outcomes
from rewards.tasks import by_task
from rollout.answer_probability import answer_probability
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, Sample


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What came of one evaluation file."""

    rows: Sequence[PredictionRow]
    held: Outcomes  # of each row in turn, but the unscored: one for a label, `annotator_draws` for counts
    metrics: Mapping[str, Metrics]  # by task


async def evaluate(
    recipe: Recipe,
    pool: RolloutPool,
    tokenizer: Tokenizer,
    files: Mapping[str, tuple[Sequence[Prompt], Path]],
    *,
    temperature: float | None = None,
    require_confidence: bool = True,
    shown: Callable[[str, Evaluated], None] = lambda name, found: None,
) -> dict[str, dict[str, Metrics]]:
    """Metrics by evaluation file and task; `files` gives each file's prompts and the folder to write into.

    `shown` is given what they are of, file by file. `tokenizer` is that of the model the pool holds: `model_tokenizer`
    of its directory.
    """
    settings, same = recipe.evaluation, sameness(recipe.rewards.correctness)
    everything = [prompt for prompts, _ in files.values() for prompt in prompts]
    sampling = SamplingSettings(settings.temperature if temperature is None else temperature, settings.response_tokens)
    groups = await sample_responses(pool, everything, settings.samples_per_prompt, sampling)
    found, start = {}, 0
    for name, (prompts, folder) in files.items():
        own = groups[start : start + len(prompts)]
        start += len(prompts)
        rows = [
            _row(recipe.response, tokenizer, prompt, trajectory.sample, require_confidence=require_confidence)
            for prompt, group in zip(prompts, own, strict=True)
            for trajectory in group.trajectories
        ]
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(folder / "predictions.jsonl", rows)  # first: scoring may fail, generating again costs more
        with opened(recipe.rewards, recipe.reward_service) as matches:
            held = outcomes(
                rows,
                recipe.response,
                settings.annotator_draws,
                settings.seed,
                require_confidence=require_confidence,
                matches=matches,
                at_once=recipe.rewards.answers_at_once,
            )
        found[name] = by_task(held, settings.bins, same)
        write_metrics(folder / "metrics.json", found[name])
        write_baselines(folder, baselines(held, settings.bins, same))
        shown(name, Evaluated(rows, held, found[name]))
    return found


def model_tokenizer(model_dir: str) -> Tokenizer:
    """The tokenizer of a Hugging Face directory."""
    return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False).backend_tokenizer


def _row(
    response: Response, tokenizer: Tokenizer, prompt: Prompt, sample: Sample, *, require_confidence: bool
) -> PredictionRow:
    return PredictionRow(
        prompt_id=prompt.prompt_id,
        task=prompt.task,
        candidates=prompt.candidates,
        label=prompt.label,
        counts=prompt.counts,
        response=sample.text,
        truncated=sample.finish_reason is FinishReason.LENGTH,
        answer_probability=answer_probability(
            sample, tokenizer, response, prompt.candidates, require_confidence=require_confidence
        ),
    )
