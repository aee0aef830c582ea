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
import logging
import tempfile
from pathlib import Path

from benchmarks.control_plane_measures import memory, scaling, tails, throughput
from benchmarks.report import Report
from benchmarks.stage3_run import Stage3

MEASURES = {"throughput": throughput, "scaling": scaling, "tails": tails, "memory": memory}


async def measure(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    """The figures of each measurement, into the report as they come."""
    started = Stage3.started(folder, arguments.raylets, arguments.hosts, arguments.reward_workers)
    async with started as stage3:
        for name in arguments.only:
            repeats = 1 if name == "memory" else arguments.repeats
            report.add(
                name,
                await MEASURES[name](stage3, repeats, small=arguments.small, trajectories=arguments.trajectories),
            )


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
    report = Report(arguments)
    with tempfile.TemporaryDirectory(prefix="caliber-") as folder:
        asyncio.run(measure(arguments, Path(folder), report))
    report.finish()


if __name__ == "__main__":
    main()
