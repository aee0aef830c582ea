"""What it costs stage 3 to be a system, and what it gains by generating while it trains: engines and learner are real.

    python -m benchmarks.overlap --json overlap.json

Generation is kept on one core and training on another. Each run starts its own processes; what it is held against runs
on the same core, between the runs. `--only` takes some of three measurements:

    curve    a step at lag 0 and asynchronously, by how long generation takes beside training: the engine's sequences
             at once are the dial, which changes neither requests nor batches
    balance  where generation takes as long as training, or a little longer: both runs, vLLM alone on the run's
             requests, DeepSpeed alone on its batches; each as often as `--repeats` says, in turns
    pause    how long requests stand still for new weights, against the reload alone

The model is the emoji recipe's, of five million parameters; with `--work words` SmolLM2-135M, with half the responses.
`curve` runs each kind once, its figures are of the run's pairs of steps; `balance` takes the mean step of each run.
`--small` is to see that it works, on a twentieth of the tokens.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from contextlib import nullcontext
from pathlib import Path

from benchmarks.report import Report

MEASURES = ("curve", "balance", "pause")
WORK = ("emoji", "words")  # whose recipe's model and prompts


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), help="what to measure")
    parser.add_argument("--repeats", type=int, help="rounds and updates (default: 5; 1 with --small)")
    parser.add_argument("--pairs", type=int, help="of steps, measured of a run (default: 5; 1 with --small)")
    parser.add_argument("--work", choices=WORK, default="emoji", help="model and prompts (default: %(default)s)")
    parser.add_argument("--lag", type=int, default=1, help="max_policy_lag of asynchronous runs (default: %(default)s)")
    parser.add_argument("--places", type=int, nargs="+", help="sequences at once (default: 4 12 60; small: 2 8)")
    parser.add_argument("--balance", type=int, help="sequences at once for `balance` (default: what `curve` finds)")
    parser.add_argument("--small", action="store_true", help="few and short steps")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    if "balance" in given.only and "curve" not in given.only and given.balance is None:
        parser.error("`balance` without `curve` needs --balance")
    logging.getLogger("cluster").setLevel(logging.ERROR)
    given.repeats = given.repeats or (1 if given.small else 5)  # as the report is to name them
    given.pairs = given.pairs or (1 if given.small else 5)
    given.places = given.places or ([2, 8] if given.small else [4, 12, 60])
    measure(given)


def measure(given: argparse.Namespace) -> None:
    """The measurements that are asked for, printed as they come."""
    # Here: the processes that are started look into this file, and are to start without Ray and DeepSpeed.
    from benchmarks.overlap_measures import Bench, balance, curve, pause
    from benchmarks.real_run import own_ray

    report = Report(given)
    with tempfile.TemporaryDirectory(prefix="caliber-") as own:
        bench = Bench.at(Path(own), given.pairs, given.lag, given.small, given.work)
        with own_ray(Path(own)) if given.only != ["pause"] else nullcontext():
            if "curve" in given.only:
                figures, found = curve(bench, given.places)
                given.balance = given.balance or found
                report.add("curve", figures)
            if "balance" in given.only:
                report.add("balance", balance(bench, given.balance, given.repeats))
        if "pause" in given.only:
            report.add("pause", pause(bench, given.repeats))
    report.finish()


if __name__ == "__main__":
    main()
