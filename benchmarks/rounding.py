"""What engine and learner differ by under the same weights, in bf16, with fp32 heads, and in fp32.

    python -m benchmarks.rounding MODEL RECIPE --json rounding.json

An engine in each precision samples responses to the first prompts of the recipe's stage 3, and the learner's model in
each computes the log-probabilities of their tokens, which the engine gave with them: what `parity` in a run's log is.
Printed is the mean difference over all tokens, and how unsure the model is of them: rounding grows with that.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report, figure
from cluster.quiet import quiet
from cluster.stages import read_file
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.chat import ChatFormat, ImageLimits
from rollout.engine import EngineOutput, SamplingSettings
from rollout.prompts import Prompt

WAYS: Mapping[str, Mapping[str, object]] = {
    "bf16": {"precision": "bf16", "fp32_head": False},
    "bf16, fp32 head": {"precision": "bf16", "fp32_head": True},
    "fp32": {"precision": "fp32", "fp32_head": False},
}


async def sampled(model_dir: str, recipe: Recipe, prompts: Sequence[Prompt]) -> list[EngineOutput]:
    """A response to each."""
    from rollout.vllm_engine import VllmEngine  # here, as below

    limits = ImageLimits.of(recipe.model, recipe.data)
    sampling = SamplingSettings(recipe.rl.temperature, recipe.rl.response_tokens)
    engine = await VllmEngine.start(model_dir, recipe.engine, limits)
    try:
        return await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in prompts))
    finally:
        await engine.close()


def scored(
    model_dir: str, recipe: Recipe, prompts: Sequence[Prompt], outputs: Sequence[EngineOutput]
) -> list[NDArray[np.float32]]:
    """The learner's log-probabilities of each response's tokens."""
    # Here: the engine's process, which looks into this file, is to start without DeepSpeed.
    import torch

    from learner.batching import TrainingSequence
    from learner.policy import ResponseLogprobs, load_model
    from learner.sequences import micro_batches

    chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
    module = ResponseLogprobs(load_model(model_dir, recipe.learner), chat.barred_token_ids(), recipe.rl.temperature)
    found = []
    for prompt, output in zip(prompts, outputs, strict=True):
        sequence = TrainingSequence(chat.expand(prompt), output.tokens, np.ones(len(output.tokens), np.float32))
        (batch,) = micro_batches([sequence], chat, recipe.learner)
        with torch.no_grad():
            found.append(module(batch).numpy())
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Hugging Face model")
    parser.add_argument("recipe", type=Path, help="recipe whose stage 3 prompts, sampling and settings are taken")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the recipe")
    parser.add_argument("--prompts", type=int, default=64, help="with a response each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    quiet()
    report = Report(given)
    recipe = load_recipe(given.recipe, given.overrides)
    prompts = read_file(recipe, recipe.data.stage3)[: given.prompts]
    for engine, its in WAYS.items():
        own = recipe.model_copy(update={"engine": recipe.engine.model_validate({**recipe.engine.model_dump(), **its})})
        outputs = asyncio.run(sampled(given.model, own, prompts))
        told = np.concatenate([output.logprobs for output in outputs])
        figures = [figure("a token's log-probability, the mean", "", [float(told.mean())], 3)]
        for learner, settings in WAYS.items():
            settings = {**recipe.learner.model_dump(), **settings}
            own = recipe.model_copy(update={"learner": recipe.learner.model_validate(settings)})
            apart = np.abs(np.concatenate(scored(given.model, own, prompts, outputs)) - told)
            figures.append(figure(f"learner in {learner}: differs by", "", [float(apart.mean())], 5))
        report.add(f"engine in {engine}, {len(told)} tokens", figures)
    report.finish()


if __name__ == "__main__":
    main()
