"""What a larger policy lag costs in quality: stage 3 again and again from one stage 2, by `rl.max_policy_lag` and seed.

    python -m benchmarks.quality_by_lag configs/emoji/demo.yaml rl.groups_per_worker=66 --into outputs/by-lag

A lag comes about only where generation is ahead of training: with as many groups at an engine as are in a batch it is,
and after some steps each batch is as old as it may be.

The recipe's stages 1 and 2 must be there (`make demo`). A run is a whole stage 3 of the recipe with its engines and
learner, and an evaluation on each of its files; all else than lag and seed is the recipe's. Runs that are finished in
the folder are not done again, so that the command may be stopped and given again. On two cores one of the demo's takes
some five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.report import Figure, Report, figure
from configs.load import load_recipe
from configs.schema import Recipe

_MEASURED = {"excess_brier": "excess Brier score", "brier": "Brier score", "accuracy": "accuracy", "ece": "ECE"}
_RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    metrics: Mapping[str, Mapping[str, float]]  # by evaluation file
    lag: float  # that was, the mean over the trajectories of the second half of the steps
    seconds: float  # of a step, the median

    @classmethod
    def read(cls, folder: Path) -> Result:
        """As it was written."""
        return cls(**json.loads((folder / _RESULT).read_text(encoding="utf-8")))


def figures(results: Mapping[int, Sequence[Result]]) -> list[Figure]:
    """Of the results by lag, each lag's with the same seeds in the same order; held against the first lag's."""
    first = next(iter(results.values()))
    found = []
    for allowed, own in results.items():
        found.append(figure(f"lag at most {allowed}: lag", "versions", [one.lag for one in own], 1))
        found.append(figure("  a step", "s", [one.seconds for one in own], 2))
        for file in own[0].metrics:
            for metric, name in _MEASURED.items():
                values = [one.metrics[file][metric] for one in own]
                found.append(figure(f"  {file}: {name}", "", values, 4))
                if own is not first:
                    before = [one.metrics[file][metric] for one in first]
                    differences = [value - other for value, other in zip(values, before, strict=True)]
                    found.append(figure("    more than the first", "", differences, 4))
    return found


async def run(recipe: Recipe, start: Path) -> Result:
    """Stage 3 from `start`, evaluated."""
    from cluster.evaluation import evaluate, model_tokenizer
    from cluster.run_folder import RunFolder
    from cluster.sampling import RolloutWorkers
    from cluster.stages import read_file, run_rl

    stage = RunFolder.of(recipe).stage(3)
    files = {name: (read_file(recipe, file), stage.evaluation(name)) for name, file in recipe.data.evaluation.items()}
    async with RolloutWorkers(recipe) as workers:
        await run_rl(recipe, str(start), await workers.holding(str(start), to_train=True))
        workers.now_hold(str(stage.model))
        pool = await workers.holding(str(stage.model))
        metrics = await evaluate(recipe, pool, model_tokenizer(str(stage.model)), files)
    lines = [json.loads(line) for line in (stage.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return Result(
        metrics={
            file: {name: getattr(found["overall"], name) for name in _MEASURED} for file, found in metrics.items()
        },
        lag=fmean(line["lag_mean"] for line in lines[len(lines) // 2 :]),
        seconds=median(line["step_seconds"] for line in lines),
    )


def main() -> None:
    """Run what is missing, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="of a run whose stage 2 is there")
    parser.add_argument("overrides", nargs="*", help="of its settings")
    parser.add_argument("--into", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1, 4, 16], help="(default: 0 1 4 16)")
    parser.add_argument("--seeds", type=int, default=5, help="of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    from cluster.run_folder import RunFolder
    from cluster.stages import connect

    start = RunFolder.of(load_recipe(given.recipe, given.overrides)).stage(2).model
    if not start.is_dir():
        parser.error(f"{start} is not there: run stages 1 and 2 of the recipe first")
    report = Report(given)
    connect("by-lag")
    results: dict[int, list[Result]] = {lag: [] for lag in given.lags}
    for seed in range(given.seeds):  # lags in turns, so that a machine's mood is no lag's
        for lag, own in results.items():
            folder = given.into / f"lag-{lag}-seed-{seed}"
            if not (folder / _RESULT).exists():
                changes = [f"rl.max_policy_lag={lag}", f"seed={seed}", f"output={folder}"]
                result = asyncio.run(run(load_recipe(given.recipe, [*given.overrides, *changes]), start))
                (folder / _RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")
            own.append(Result.read(folder))
    report.add(f"{given.seeds} seeds", figures(results))
    report.finish()


if __name__ == "__main__":
    main()
