"""Which of transformers' attention implementations a learner on CPUs is faster with.

    python -m benchmarks.attention MODEL RECIPE --json attention.json

Groups of prompts of the recipe's stage 3 with responses of random tokens, as in `benchmarks.shared_prompts`; one
forward and backward pass of all of them, in turns with eager attention and with sdpa, in one process. Printed are the
medians over repeats and their range, and the largest difference of a token's log-probability between the two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.report import Report, figure
from benchmarks.shared_prompts import logprobs, pass_through, sequences
from configs.load import load_recipe
from learner.policy import ResponseLogprobs, load_model
from learner.sequences import micro_batches
from rollout.chat import ChatFormat, ImageLimits

WAYS = ("eager", "sdpa")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Hugging Face model")
    parser.add_argument("recipe", help="recipe whose stage 3 prompts and learner are taken")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the recipe")
    parser.add_argument("--groups", type=int, help="groups (default: the recipe's prompts of a step)")
    parser.add_argument("--repeats", type=int, default=7, help="repeats (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report = Report(given)
    recipe = load_recipe(Path(given.recipe), given.overrides)
    groups, samples = given.groups or recipe.rl.prompts_per_step, recipe.rl.samples_per_prompt
    chat = ChatFormat(given.model, ImageLimits.of(recipe.model, recipe.data))
    modules = {
        way: ResponseLogprobs(
            load_model(given.model, recipe.learner.model_copy(update={"attention": way})),
            chat.barred_token_ids(),
            recipe.rl.temperature,
        )
        for way in WAYS
    }
    made = sequences(recipe, chat, groups, samples, recipe.rl.response_tokens)
    batches = micro_batches(made, chat, recipe.learner)
    eager, sdpa = (logprobs(module, batches) for module in modules.values())
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(1 + given.repeats):  # the first one warms up
        for way, module in modules.items():
            took = pass_through(module, batches)
            if repeat > 0:
                seconds[way].append(took)
    report.add(
        f"{groups} groups of {samples} responses, {torch.get_num_threads()} threads",
        [
            *(figure(way, "s", seconds[way], 2) for way in WAYS),
            figure("eager faster by", "", [b / a for a, b in zip(seconds["eager"], seconds["sdpa"], strict=True)], 2),
            figure("log-probabilities differ by at most", "millionths", [1e6 * float((eager - sdpa).abs().max())], 1),
        ],
    )
    report.finish()


if __name__ == "__main__":
    main()
