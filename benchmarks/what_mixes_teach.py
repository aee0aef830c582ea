"""What mixes of rewards teach a policy whose best behaviour is known: who cheats, and how far.

    python -m benchmarks.what_mixes_teach --json what_mixes_teach.json

On the table policy, 6,000 steps of each mix. Printed are medians over seeds and their range: accuracy (0.500 is best),
the excess of the Brier score over an honest policy's (below 0: the answers are wrong on purpose), how far confidences
are off above and below p = 0.5, and the highest p whose prompt is answered wrong on purpose.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report import Figure, Report, figure
from benchmarks.table_policy import IDEAL_BRIER, Learnt, P, learnt

JOINT = {"credit": "joint"}
TWICE_CALIBRATION = JOINT | {"weights": {"correctness": 1.0, "calibration": 2.0}}
MIXES: Mapping[str, tuple[Mapping[str, object], bool]] = {
    "apart, Brier": ({}, False),
    "apart, Brier, exact": ({}, True),
    "apart, log": ({"scoring_rule": "log"}, False),
    "jointly, Brier, a = b": (JOINT, False),
    "the same, divided by the std": (JOINT | {"divide_by_std": True}, False),
    "jointly, Brier, a = 1, b = 2": (TWICE_CALIBRATION, False),
    # EmoCaliber's, its log clipped where a table can state 0 and 1
    "jointly, log, a = 1, b = 2": (TWICE_CALIBRATION | {"scoring_rule": "log", "log_clip": 1e-6}, False),
}


def figures(found: Sequence[Learnt]) -> list[Figure]:
    """What a mix came to with each seed."""
    return [
        figure("accuracy", "", [table.accuracy for table in found], 3),
        figure("excess Brier", "", [table.brier - IDEAL_BRIER for table in found], 3),
        figure("off above 0.5", "", [float(table.bias[P > 0.5].mean()) for table in found], 3),
        figure("off below 0.5", "", [float(table.bias[P < 0.5].mean()) for table in found], 3),
        figure("sabotage up to p", "", [float(max(P[table.honesty < 0.5], default=0.0)) for table in found], 3),
    ]


def main() -> None:
    """Train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds (default: 5)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report = Report(given)
    for name, (settings, exact) in MIXES.items():
        report.add(name, figures([learnt(settings, exact=exact, seed=seed) for seed in range(given.seeds)]))
    report.finish()


if __name__ == "__main__":
    main()
