"""What it saves to put a group's prompt through the learner once and not once for each sample.

    python -m benchmarks.shared_prompts MODEL RECIPE --json shared_prompts.json

Groups of one prompt of the recipe's stage 3 each, with responses of random tokens; one forward and backward pass of
all of them, in turns with shared prompts and without, in one process. Printed are the medians over repeats and their
range, and the largest difference of a token's log-probability between the two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Report, figure
from cluster.stages import read_file
from configs.load import load_recipe
from configs.schema import Recipe
from learner.batching import MicroBatch, TrainingSequence
from learner.policy import ResponseLogprobs, load_model
from learner.sequences import micro_batches
from rollout.chat import ChatFormat, ImageLimits


def sequences(recipe: Recipe, chat: ChatFormat, groups: int, samples: int, tokens: int) -> list[TrainingSequence]:
    """`groups` prompts with `samples` responses each, of half to all of `tokens` random tokens."""
    random = np.random.default_rng(0)
    barred = set(chat.barred_token_ids())
    allowed = np.array([token for token in range(len(chat.tokenizer)) if token not in barred])
    made = []
    for prompt in read_file(recipe, recipe.data.stage3)[:groups]:
        expanded = chat.expand(prompt)
        for length in random.integers(tokens // 2, tokens + 1, size=samples):
            response = random.choice(allowed, size=length).astype(np.int32)
            made.append(TrainingSequence(expanded, response, np.ones(length, np.float32)))
    return made


def pass_through(module: ResponseLogprobs, batches: Sequence[MicroBatch]) -> float:
    """Forward and backward; returns the seconds they took."""
    module.zero_grad()
    started = time.perf_counter()
    for batch in batches:
        module(batch).sum().backward()
    return time.perf_counter() - started


def logprobs(module: ResponseLogprobs, batches: Sequence[MicroBatch]) -> torch.Tensor:
    """Of all response tokens, sorted: the two ways order their rows differently."""
    with torch.no_grad():
        return torch.cat([module(batch) for batch in batches]).sort().values


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Hugging Face model")
    parser.add_argument("recipe", help="recipe whose stage 3 prompts and learner are taken")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the recipe")
    parser.add_argument("--groups", type=int, default=8, help="groups (default: %(default)s)")
    parser.add_argument("--samples", type=int, help="samples a group (default: the recipe's)")
    parser.add_argument("--tokens", type=int, help="tokens of a response at most (default: the recipe's)")
    parser.add_argument("--repeats", type=int, default=7, help="repeats (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report = Report(given)
    recipe = load_recipe(Path(given.recipe), given.overrides)
    samples, tokens = given.samples or recipe.rl.samples_per_prompt, given.tokens or recipe.rl.response_tokens
    chat = ChatFormat(given.model, ImageLimits.of(recipe.model, recipe.data))
    module = ResponseLogprobs(load_model(given.model, recipe.learner), chat.barred_token_ids(), recipe.rl.temperature)
    made = sequences(recipe, chat, given.groups, samples, tokens)
    ways = {
        shared: micro_batches(made, chat, recipe.learner.model_copy(update={"share_prompts": shared}))
        for shared in (True, False)
    }
    difference = float((logprobs(module, ways[True]) - logprobs(module, ways[False])).abs().max())
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(1 + given.repeats):  # the first one warms up
        for shared, batches in ways.items():
            took = pass_through(module, batches)
            if repeat > 0:
                seconds[shared].append(took)
    through = {shared: sum(int(batch.attention_mask.sum()) for batch in batches) for shared, batches in ways.items()}
    report.add(
        f"{given.groups} groups of {samples} responses of up to {tokens} tokens, {torch.get_num_threads()} threads",
        [
            figure("prompts once for each group", "s", seconds[True], 2),
            figure("  through the model", "tokens", [through[True]]),
            figure("prompts once for each sample", "s", seconds[False], 2),
            figure("  through the model", "tokens", [through[False]]),
            figure("faster by", "", [b / a for a, b in zip(seconds[True], seconds[False], strict=True)], 2),
            figure("log-probabilities differ by at most", "millionths", [1e6 * difference], 1),
        ],
    )
    report.finish()


if __name__ == "__main__":
    main()
