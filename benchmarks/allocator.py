"""What tcmalloc, which Caliber takes where it is installed, saves a learner on CPUs against the C library's allocator.

    python -m benchmarks.allocator MODEL RECIPE --json allocator.json

Each repeat is a process with the one and a process with the other, in turns, on all cores: optimizer steps of the
recipe's learner on its stage 3 prompts with responses of random tokens, so that shapes change from step to step.
Printed are tokens a second, the kernel's share of the processor time, and the most memory there was; ratios are of
the two processes of a repeat.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.bare_learner import join_alone
from benchmarks.bound_process import bound
from benchmarks.report import Figure, Report, figure
from benchmarks.shared_prompts import sequences
from cluster.allocator import MISSING, allocator_environment
from cluster.quiet import quiet
from configs.load import load_recipe
from configs.schema import Recipe
from learner.batching import MicroBatch
from learner.policy import Policy
from learner.sequences import micro_batches
from rollout.chat import ChatFormat, ImageLimits

_WARM_UP = 2  # steps, in which memory is asked for the first time


@dataclass(frozen=True, slots=True)
class Trained:
    """What a process did."""

    tokens_per_second: float
    kernel_share: float  # of its processor time
    gib: float  # its largest resident set


def train(model_dir: str, recipe: Recipe, groups: int, steps: int) -> Trained:
    """Optimizer steps of so many groups each. One rank, in a process of its own."""
    quiet()
    torch.set_num_threads(recipe.learner.threads_per_rank or os.cpu_count() or 1)
    join_alone()
    chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
    samples = recipe.rl.samples_per_prompt
    made = sequences(recipe, chat, groups * (_WARM_UP + steps), samples, recipe.rl.response_tokens)
    size = groups * samples
    batches = [micro_batches(made[first : first + size], chat, recipe.learner) for first in range(0, len(made), size)]
    policy = Policy(model_dir, recipe.learner, recipe.rl.optimizer, steps=len(batches))
    for own in batches[:_WARM_UP]:
        policy.step(own, _loss)
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for own in batches[_WARM_UP:]:
        policy.step(own, _loss)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    tokens = sum(int(batch.attention_mask.sum()) for own in batches[_WARM_UP:] for batch in own)
    kernel, program = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    return Trained(tokens / seconds, kernel / (kernel + program), after.ru_maxrss / 2**20)


def _loss(logprobs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    return -(logprobs * batch.weights).sum()


def compared(plain: list[Trained], kept: list[Trained]) -> list[Figure]:
    """Both allocators' figures, and the ratios of a repeat's two."""
    figures = []
    for name, found in (("glibc", plain), ("tcmalloc", kept)):
        figures += [
            figure(f"{name}: learner", "tokens/s", [each.tokens_per_second for each in found]),
            figure("  the kernel's, of the processor time", "%", [100 * each.kernel_share for each in found], 1),
            figure("  most memory", "GiB", [each.gib for each in found], 2),
        ]
    pairs = list(zip(plain, kept, strict=True))
    return [
        *figures,
        figure("tcmalloc faster by", "", [b.tokens_per_second / a.tokens_per_second for a, b in pairs], 2),
        figure("  its memory, of glibc's", "", [b.gib / a.gib for a, b in pairs], 2),
    ]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Hugging Face model")
    parser.add_argument("recipe", help="recipe whose stage 3 prompts and learner are taken")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the recipe")
    parser.add_argument("--groups", type=int, help="groups of a step (default: the recipe's prompts of a step)")
    parser.add_argument("--steps", type=int, default=5, help="measured of a process (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    variables = allocator_environment(0)
    if not variables:
        parser.error(f"tcmalloc is {MISSING}")
    recipe = load_recipe(Path(given.recipe), given.overrides)
    report, cores = Report(given), ",".join(map(str, sorted(os.sched_getaffinity(0))))
    arguments = (given.model, recipe, given.groups or recipe.rl.prompts_per_step, given.steps)
    plain, kept = [], []
    for _ in range(given.repeats):
        plain.append(bound(cores, "benchmarks.allocator.train", *arguments, allocator={}))
        kept.append(bound(cores, "benchmarks.allocator.train", *arguments, allocator=variables))
    report.add("allocator", compared(plain, kept))
    report.finish()


if __name__ == "__main__":
    main()
