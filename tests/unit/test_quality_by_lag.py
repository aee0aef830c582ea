"""What `benchmarks.quality_by_lag` makes of its runs."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.quality_by_lag import Result, figures
from benchmarks.report import Report


def result(excess: float, lag: float = 0.0) -> Result:
    measured = {"excess_brier": excess, "brier": excess + 0.1, "accuracy": 0.5, "ece": 0.05}
    return Result({"seen": measured}, lag, 2.0)


def test_a_lag_is_held_against_the_first_seed_by_seed() -> None:
    first, later = [result(0.02), result(0.05), result(0.01)], [result(0.03, 4.0), result(0.05, 3.0), result(0.05, 5.0)]

    found = figures({0: first, 4: later})

    excess = [one for one in found if "excess" in one.of]
    assert [(one.median, one.lowest, one.highest) for one in excess] == [(0.02, 0.01, 0.05), (0.05, 0.03, 0.05)]
    difference = found[found.index(excess[1]) + 1]
    assert difference.of == "    more than the first"
    assert (difference.median, difference.lowest, difference.highest) == pytest.approx((0.01, 0.0, 0.04))
    assert [one.median for one in found if one.of.endswith(": lag")] == [0.0, 4.0]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = result(0.03, 1.5)
    (tmp_path / "result.json").write_text(json.dumps(asdict(written)))

    assert Result.read(tmp_path) == written


def test_the_numbers_and_what_was_asked_for_are_written(tmp_path: Path) -> None:
    report = Report(Namespace(recipe=Path("recipe.yaml"), seeds=1, json=tmp_path / "by_lag.json"))
    report.add("1 seed", figures({0: [result(0.02)]}))

    report.finish()

    written = json.loads((tmp_path / "by_lag.json").read_text())
    assert written["arguments"] == {"recipe": "recipe.yaml", "seeds": 1}
    assert [one["median"] for one in written["figures"]["1 seed"] if "excess" in one["of"]] == [0.02]
