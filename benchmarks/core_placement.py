"""Whether a step of stage 3 is faster where engine and learner share all cores, or have some each.

    python -m benchmarks.core_placement --json core_placement.json

The runs of `benchmarks.real_run` with lag 1, in turns: generation on one core and training on another, with a thread
each, and both on both, with two threads each. What is measured of a run is its mean step after the first two; ratios
are of the two runs of a repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.overlap import WORK
from benchmarks.report import Report, figure

_FILLING = 2  # steps until an asynchronous run is as it will be
PLACES: Mapping[str, Mapping[str, object]] = {
    "a core each": {},  # as `benchmarks.real_run` has it
    "both cores shared": {
        "engine.cores": "null",
        "learner.cores": "null",
        "engine.threads_per_worker": 2,
        "learner.threads_per_rank": 2,
    },
}
_SMALL = {"rl.prompts_per_step": 4, "rl.groups_per_worker": 4, "rl.response_tokens": 16, "rl.samples_per_prompt": 2}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, help="runs of each (default: 5; 1 with --small)")
    parser.add_argument("--steps", type=int, help="measured of a run (default: 10; 2 with --small)")
    parser.add_argument("--work", choices=WORK, default="emoji", help="model and prompts (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="few and short steps")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    logging.getLogger("cluster").setLevel(logging.ERROR)
    given.repeats = given.repeats or (1 if given.small else 5)
    given.steps = given.steps or (2 if given.small else 10)
    report = Report(given)
    with tempfile.TemporaryDirectory(prefix="caliber-") as own:
        seconds = measured(Path(own), given)
    apart, shared = seconds.values()
    report.add(
        f"{given.work}, lag 1, two cores",
        [
            *(figure(f"{place}: a step", "s", found, 2) for place, found in seconds.items()),
            figure("shared faster by", "", [a / b for a, b in zip(apart, shared, strict=True)], 2),
        ],
    )
    report.finish()


def measured(folder: Path, given: argparse.Namespace) -> dict[str, list[float]]:
    """Mean seconds of a step, by place, of each repeat."""
    # Here: processes that are started look into this file, and are to start without Ray and DeepSpeed.
    from benchmarks.overlap_measures import WORK as CHOICES
    from benchmarks.real_run import own_ray, prepared, real_run, recipe_for

    work, seconds = CHOICES[given.work], {place: list[float]() for place in PLACES}
    model_dir = prepared(recipe_for(folder, "model", work=work))
    with own_ray(folder):
        for repeat in range(given.repeats):
            for number, (place, settings) in enumerate(PLACES.items()):
                chosen = {**(_SMALL if given.small else {}), **settings}
                recipe = recipe_for(folder, f"{number}-{repeat}", chosen, work)
                seconds[place].append(asyncio.run(real_run(recipe, model_dir, _FILLING, given.steps)).seconds)
    return seconds


if __name__ == "__main__":
    main()
