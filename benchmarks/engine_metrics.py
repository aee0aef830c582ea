"""What it costs an engine to export vLLM's own metrics to Ray: time on a core for each token, with and without.

    python -m benchmarks.engine_metrics --json engine_metrics.json

Two rollout workers with the demo's model, its weights random, are asked for the same in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
import ray

from benchmarks.real_run import own_ray
from benchmarks.report import Report, figure
from cluster.rollout_actor import RolloutWorker
from configs.load import load_recipe
from configs.schema import Recipe
from learner.scratch import build_scratch_model
from rewards.parse import OUTER_TAGS
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.engine import SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.prompts import Message, Prompt
from rollout.simulated_text import WORDS
from rollout.worker import Visit

DEMO = Path(__file__).parents[1] / "configs" / "emoji" / "demo.yaml"
_PROMPT = Prompt("p", "mood", (Message("user", WORDS),))
_GROUPS, _SAMPLES = 32, 8
_SAMPLING = SamplingSettings(1.0, 48)
_KINDS = {"with": True, "without": False}


class _Worker(RolloutWorker):
    def cpu_seconds(self) -> float:
        """On a core, of the worker and all it has started."""
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def measure(model_dir: str, recipe: Recipe, repeats: int) -> dict[str, list[float]]:
    """Microseconds on a core for a token, by kind of worker. Needs `own_ray`."""
    workers = {kind: ray.remote(num_cpus=0)(_Worker).remote(kind) for kind in _KINDS}
    for kind, exported in _KINDS.items():
        setup = EngineSetup(model_dir, recipe.engine, ImageLimits(), exported=exported)
        ray.get(workers[kind].start.remote(setup))
        _microseconds(workers[kind])  # the first ones take longer
    rounds = [{kind: _microseconds(worker) for kind, worker in workers.items()} for _ in range(repeats)]
    return {kind: [one[kind] for one in rounds] for kind in workers}


def _microseconds(worker: ray.actor.ActorHandle) -> float:
    """For a token of a load."""
    before = ray.get(worker.cpu_seconds.remote())
    visits = [Visit(number, _PROMPT, None, _SAMPLES, time.time()) for number in range(_GROUPS)]
    encoded = [worker.generate.options(num_returns=2).remote(visit, _SAMPLING)[1] for visit in visits]
    groups = map(decode_group, ray.get(encoded))
    tokens = sum(len(trajectory.sample.tokens) for group in groups for trajectory in group.trajectories)
    return (ray.get(worker.cpu_seconds.remote()) - before) / tokens * 1e6


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="loads of each worker (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    recipe, report = load_recipe(DEMO, []), Report(given)
    assert recipe.model.scratch is not None
    with tempfile.TemporaryDirectory(prefix="caliber-") as own, own_ray(Path(own)):
        model = Path(own) / "model"
        build_scratch_model(recipe.model.scratch, [WORDS] * 4, OUTER_TAGS, model, seed=0)
        found = measure(str(model), recipe, given.repeats)
    report.add("a token, vLLM's own metrics", [figure(kind, "us on a core", of, 1) for kind, of in found.items()])
    report.finish()


if __name__ == "__main__":
    main()
