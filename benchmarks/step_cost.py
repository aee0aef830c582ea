"""What a step of stage 3 costs as it grows, engines and learner real: four tables, one setting each.

    python -m benchmarks.step_cost --json step_cost.json

    workers     rollout workers; all on the one core that generation has
    samples     responses to each prompt
    tokens      of a response
    parameters  widths of the model, text and vision alike

Generation is kept on one core and training on another; lag 1, with which two batches may be in the making and come at
once. Each line is a run of its own, figures are medians over pairs of its steps, whose means are taken. All but the one
setting is as in `benchmarks.real_run`: 1 worker, 6 samples, 48 tokens, width 192.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.real_run import own_ray, prepared, real_run, recipe_for
from benchmarks.report import Figure, Report, figure
from benchmarks.step_times import Steps
from configs.schema import Recipe

Setting = Mapping[str, object]

_FILLING = 2  # steps until an asynchronous run is as it will be
_ROOM = 80  # tokens of a sequence for the prompt
_HEAD = 48  # width of an attention head, in every model
_BYTES = 4  # of a parameter: models are built in fp32


def _workers(number: int) -> Setting:
    return {"engine.workers": number, "engine.cpus_per_worker": 0.75 / number}


def _samples(number: int) -> Setting:
    return {"rl.samples_per_prompt": number}


def _tokens(number: int) -> Setting:
    return {"rl.response_tokens": number, "engine.tokens_per_sequence": number + _ROOM}


def _width(width: int) -> Setting:
    heads = width // _HEAD
    text = f"width: {width}, heads: {heads}, key_value_heads: {heads // 2}, mlp_width: {width * 8 // 3}"
    vision = f"vision_width: {width}, vision_heads: {heads}, vision_mlp_width: {4 * width}"
    return {"model.scratch": f"{{{text}, {vision}}}"}


TABLES: Mapping[str, tuple[Callable[[int], Setting], tuple[int, ...]]] = {
    "workers": (_workers, (1, 2, 4)),
    "samples": (_samples, (2, 6, 12, 24)),
    "tokens": (_tokens, (12, 48, 96, 192)),
    "parameters": (_width, (96, 192, 384)),
}
_SMALL = {"rl.prompts_per_step": 4, "rl.groups_per_worker": 4, "rl.response_tokens": 16, "rl.samples_per_prompt": 2}


def cost(name: str, recipe: Recipe, steps: Steps) -> list[Figure]:
    """A line of a table: what a step takes and does."""
    rl = recipe.rl
    tokens = rl.prompts_per_step * rl.samples_per_prompt * rl.response_tokens
    seconds = steps.by_pairs("step_seconds")
    return [
        figure(f"{name}: a step", "s", seconds, 2),
        figure("  training, of it", "s", steps.by_pairs("learner_seconds"), 2),
        figure("  for each response token", "ms", [1000 * each / tokens for each in seconds], 3),
        figure("  response tokens, all workers", "tokens/s", [tokens / each for each in seconds]),
        figure("  learner, prompts included", "tokens/s", steps.by_pairs("learner_tokens_per_second")),
        figure("  until all workers hold new weights", "s", steps.by_pairs("update_seconds"), 3),
    ]


def measured(table: str, value: int, folder: Path, pairs: int, *, small: bool) -> list[Figure]:
    """One run. Needs `own_ray`."""
    setting = TABLES[table][0](value)
    recipe = recipe_for(folder, f"{table}-{value}", {**(_SMALL if small else {}), **setting})
    model_dir = prepared(recipe)
    name = f"{value} {table}"
    if table == "parameters":
        name = f"{os.path.getsize(f'{model_dir}/model.safetensors') / _BYTES / 1e6:.1f} million, width {value}"
    return cost(name, recipe, asyncio.run(real_run(recipe, model_dir, _FILLING, 2 * pairs)))


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="which tables")
    parser.add_argument("--pairs", type=int, help="of steps, measured of a run (default: 5; 1 with --small)")
    parser.add_argument("--small", action="store_true", help="short steps, two lines a table")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    logging.getLogger("cluster").setLevel(logging.ERROR)
    given.pairs = given.pairs or (1 if given.small else 5)
    report = Report(given)
    with tempfile.TemporaryDirectory(prefix="caliber-") as own, own_ray(Path(own)):
        for table in given.only:
            values = TABLES[table][1][: 2 if given.small else None]
            figures = [measured(table, value, Path(own), given.pairs, small=given.small) for value in values]
            report.add(table, [each for line in figures for each in line])
    report.finish()


if __name__ == "__main__":
    main()
