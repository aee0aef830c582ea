"""The part of a model card that says what a stage's model was trained on, and for what rewards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from cluster.export_source import Source
from cluster.live_weights import shown
from configs.schema import Reading, RewardWeights
from rewards.safety import unsafe


def training(source: Source, base: str) -> Iterator[str]:
    """Paragraphs; `base` names the model the run started from."""
    yield "## Training"
    yield "\n".join(f"- {line}" for line in _stages(source, base))
    if source.number == 3:
        yield "### Rewards"
        yield "\n".join(f"- {line}" for line in _rewards(source))


def _stages(source: Source, base: str) -> Iterator[str]:
    recipe, number, rl = source.recipe, source.number, source.recipe.rl
    yield f"Base model: {base}."
    if recipe.data.emoji is not None or recipe.data.words is not None:
        yield f"Data: the {'words' if recipe.data.emoji is None else 'emoji'} set that Caliber builds."
    for n, sft, file in ((1, recipe.stage1, recipe.data.stage1), (2, recipe.stage2, recipe.data.stage2)):
        if n <= number:
            yield f"Stage {n}, supervised: {sft.steps} steps of {sft.rows_per_step} rows of `{file}`."
    if number > 1:
        yield f"Stage 2's confidences came from: {recipe.seeding.source}."
    if number > 2:
        yield (
            f"Stage 3, reinforcement: {rl.steps} steps of {rl.prompts_per_step} prompts of `{recipe.data.stage3}`, "
            f"{rl.samples_per_prompt} responses to each, at temperature {rl.temperature:g}."
        )
    if (lora := recipe.learner.lora) is not None:
        yield f"Each stage trained adapters alone: rank {lora.rank}, alpha {lora.alpha_taken:g}."


def _rewards(source: Source) -> Iterator[str]:
    rewards = source.recipe.rewards
    against = ", ".join(f"{name} {share:g}" for name, share in rewards.target.model_dump().items() if share)
    if rewards.preset is not None:
        yield f"Preset: {rewards.preset}."
    if rewards.reading is not Reading.STRICT:
        yield f"Responses were read by the rules of: {rewards.reading}."
    yield f"Answers were held against the {rewards.reference}, and are right by the rule `{rewards.correctness}`."
    yield f"Confidences were scored by the {rewards.scoring_rule} score against: {against}."
    mixes = list(_weights(source))
    yield from (f"Weights from step {step} on: {shown(weights)}." for step, weights in mixes)
    yield f"Credit: {rewards.credit}. Baseline: {rewards.baseline}."
    for step, weights in mixes:
        found = unsafe(rewards.model_copy(update={"weights": weights}))
        yield from (f"UNSAFE with the weights from step {step} on: {message}" for message in found)


def _weights(source: Source) -> Iterator[tuple[int, RewardWeights]]:
    """The weights that steps were trained with, from the log: each with the first step that had them."""
    before = None
    with (source.stage.path / "log.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            step: Mapping[str, float] = json.loads(line)
            weights = RewardWeights(**{name: step[f"weight/{name}"] for name in RewardWeights.model_fields})
            if weights != before:
                yield int(step["step"]), weights
            before = weights
