"""What stage 3's control plane can carry: the real one, on a local Ray cluster, around simulated engines and learner.

    python -m benchmarks.control_plane --json control_plane.json

Controller, rollout pool, supervisor, reward service, gate, buffer and ledger are the production code; each of the
measurements is named, and `--only` takes some of them:

    throughput  trajectories a second where engines and learner take no time, and which process they cost how much
    scaling     the same against the number of engines that take a while for a response, 1 to 512
    tails       long-tailed lengths (99th percentile 20 times the median) against constant ones, by allowed policy lag
    memory      the driver's memory over many trajectories

Groups are of 8. Every number is the median over repeats, a run of the controller each, with its range; lengths and
numbers of engines take turns within a repeat, so that what else the machine does falls on all of them. All takes about
half an hour; `--small` is a few seconds for each run, to see that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks.control_plane_measures import Figure, memory, scaling, tails, throughput
from benchmarks.stage3_run import Stage3

MEASURES = {"throughput": throughput, "scaling": scaling, "tails": tails, "memory": memory}
_VERSIONS = ("ray", "numpy", "torch", "msgpack", "tokenizers")


async def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, list[Figure]]:
    """The figures of each measurement, printed as they come."""
    found = {}
    started = Stage3.started(folder, arguments.raylets, arguments.hosts, arguments.reward_workers)
    async with started as stage3:
        for name in arguments.only:
            repeats = 1 if name == "memory" else arguments.repeats
            found[name] = await MEASURES[name](
                stage3, repeats, small=arguments.small, trajectories=arguments.trajectories
            )
            show(name, found[name])
    return found


def show(name: str, figures: Sequence[Figure]) -> None:
    """A table of one measurement."""
    print(f"\n{name}")
    for figure in figures:
        span = f"({figure.lowest:,.{figure.decimals}f} to {figure.highest:,.{figure.decimals}f})"
        print(f"  {figure.of:44}{figure.median:12,.{figure.decimals}f} {figure.unit:24}{span}", flush=True)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), help="what to measure")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="short runs, fewer engines")
    parser.add_argument(
        "--trajectories", type=int, default=20_000, help="for memory (default: %(default)s; long: 200000)"
    )
    parser.add_argument("--raylets", type=int, default=1, help="nodes of the cluster (default: %(default)s)")
    parser.add_argument("--hosts", type=int, default=1, help="processes for the engines (default: %(default)s)")
    parser.add_argument("--reward-workers", type=int, default=1, help="reward workers (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    logging.getLogger("cluster").setLevel(logging.ERROR)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="caliber-") as folder:
        found = asyncio.run(measured(arguments, Path(folder)))
    idle = os.sched_getscheduler(0) == os.SCHED_IDLE
    print(f"\nload averages before and after: {before[0]:.1f}, {os.getloadavg()[0]:.1f}{', idle priority' * idle}")
    if arguments.json is not None:
        numbers = {
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "load_average": {"before": before, "after": os.getloadavg()},
            "idle_priority": idle,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
            "arguments": {name: value for name, value in vars(arguments).items() if name != "json"},
            "figures": {name: [asdict(figure) for figure in figures] for name, figures in found.items()},
        }
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
