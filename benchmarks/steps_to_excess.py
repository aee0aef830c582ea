"""How many steps the exact confidence gradient needs for a given excess Brier score, beside the sampled one.

    python -m benchmarks.steps_to_excess --json steps_to_excess.json

On the table policy, whose excess is known exactly; credit apart, Brier score. Printed are medians over seeds of the
steps after which the excess is under a mark for the first time, looked at every 20 steps, and their range; a ratio is
of a seed's two runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import Report, figure
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
    """Train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds (default: 5)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report, seeds = Report(given), range(given.seeds)
    sampled, exact = ([steps_to(MARKS, exact=exact, seed=seed) for seed in seeds] for exact in (False, True))
    for place, mark in enumerate(MARKS):
        slow, fast = ([steps[place] for steps in runs] for runs in (sampled, exact))
        report.add(
            f"excess under {mark}",
            [
                figure("sampled", "steps", slow),
                figure("exact", "steps", fast),
                figure("sampled / exact", "", [a / b for a, b in zip(slow, fast, strict=True)], 1),
            ],
        )
    report.finish()


if __name__ == "__main__":
    main()
