"""How many steps the exact confidence gradient needs for a given excess Brier score, beside the sampled one.

    python -m benchmarks.steps_to_excess

On the table policy, whose excess is known exactly; credit apart, Brier score. Printed are medians over seeds of the
steps after which the excess is under a mark for the first time, looked at every 20 steps, and their range.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.table_policy import IDEAL_BRIER, STEPS, training

MARKS = (0.02, 0.01, 0.005)
LOOK_EVERY = 20


def steps_to(marks: tuple[float, ...], *, exact: bool, seed: int) -> list[int]:
    """Steps until the excess is under each mark; all the steps where it never was."""
    found = [STEPS] * len(marks)
    for number, table in enumerate(training({}, exact=exact, seed=seed, look_every=LOOK_EVERY), start=1):
        for place, mark in enumerate(marks):
            if table.brier - IDEAL_BRIER < mark:
                found[place] = min(found[place], number * LOOK_EVERY)
        if max(found) < STEPS:
            break
    return found


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds (default: 5)")
    seeds = range(parser.parse_args().seeds)
    by_gradient = {
        name: [steps_to(MARKS, exact=name == "exact", seed=seed) for seed in seeds] for name in ("sampled", "exact")
    }
    print(f"{'excess under':14}{'sampled':>22}{'exact':>22}{'ratio':>8}")
    for place, mark in enumerate(MARKS):
        steps = {name: [run[place] for run in runs] for name, runs in by_gradient.items()}
        medians = {name: statistics.median(found) for name, found in steps.items()}
        cells = [f"{medians[name]:.0f} ({min(found)} to {max(found)})" for name, found in steps.items()]
        print(f"{mark:<14}{cells[0]:>22}{cells[1]:>22}{medians['sampled'] / medians['exact']:>8.1f}")


if __name__ == "__main__":
    main()
