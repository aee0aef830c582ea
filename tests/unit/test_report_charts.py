"""What the report's charts and tables draw: the numbers that they are of, each in its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from cluster.report.comparison import comparison
from cluster.report.curves import RL_PANELS, SFT_PANELS, Panel, curves
from cluster.report.evaluations import Evaluation
from cluster.report.reliability_chart import reliability_chart
from cluster.report.responses import ResponseRow
from cluster.report.run_data import RunData, read_run
from rewards.reliability import reliability
from tests.unit import virtual_time
from tests.unit.report_run import made_run
from tests.unit.test_controller import trial
from tests.unit.test_sft_steps import steps

BINS = 10
ROUNDED = 0.00051  # tables have three decimals


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(made_run(tmp_path_factory.mktemp("first"), groups=1))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """One that has been asked less, and says other things."""
    return read_run(made_run(tmp_path_factory.mktemp("second"), groups=1, prompts=8, seed=1))


def metrics(panels: Iterable[Panel]) -> set[str]:
    return {metric for panel in panels for metric, _ in panel.series}


def logged(folder: Path) -> set[str]:
    """The names in every line of a log."""
    return set.intersection(*(set(json.loads(line)) for line in (folder / "log.jsonl").read_text().splitlines()))


# --- curves


def test_each_metric_of_the_curves_is_one_that_stage_3_logs(tmp_path: Path) -> None:
    virtual_time.run(trial(tmp_path).controller.run())

    assert metrics(RL_PANELS) - logged(tmp_path) == set()


def test_each_metric_of_the_losses_is_one_that_an_sft_stage_logs(tmp_path: Path) -> None:
    steps(tmp_path)

    assert metrics(SFT_PANELS) - logged(tmp_path) == set()


def test_each_curve_is_of_the_metric_that_it_is_named_after() -> None:
    panel = Panel("Two", "percent", (("ece", "ECE"), ("brier", "Brier")), 100)

    chart = curves(panel, [{"step": 1, "ece": 0.1, "brier": 0.3}, {"step": 2, "ece": 0.2, "brier": None}], ())

    assert chart is not None
    drawn = {line.get("data-label"): line.get("data-points") for line in chart.iterfind("polyline[@data-label]")}
    assert drawn == {"ECE": "1:10 2:20", "Brier": "1:30"}


# --- the reliability diagram


def by_bin(rows: Iterable[ResponseRow]) -> tuple[list[int], list[int]]:
    """How many responses are right, and how many are wrong, in each bin that has any; ascending."""
    right, wrong = Counter[int](), Counter[int]()
    for row in rows:
        assert row.confidence is not None and row.right != row.wrong
        (right if row.right else wrong)[int(row.confidence * BINS + 1e-9)] += 1
    places = sorted(right | wrong)
    return [right[place] for place in places], [wrong[place] for place in places]


def number(of: Element, name: str) -> float:
    return float(of.get(name, ""))


def test_the_bars_stand_for_the_right_answers_above_and_the_wrong_ones_below(run: RunData) -> None:
    evaluation = run.evaluations[-1]
    assert evaluation.outcomes is not None
    bins = reliability(evaluation.outcomes, BINS)

    svg = reliability_chart(bins)

    right, wrong = by_bin(evaluation.rows)
    assert right != wrong and min(right + wrong) > 0
    assert ([one.right for one in bins], [one.n - one.right for one in bins]) == (right, wrong)
    middle = next(number(line, "y1") for line in svg.iterfind("line[@class='base']"))
    upper, lower = (svg.findall(f"rect[@class='bar {kind}']") for kind in ("right", "wrong"))
    assert [number(bar, "y") + number(bar, "height") for bar in upper] == pytest.approx([middle] * len(bins), abs=0.1)
    assert [number(bar, "y") for bar in lower] == [middle] * len(bins)
    heights = np.array([number(bar, "height") for bar in upper + lower])
    assert heights / heights.max() == pytest.approx(np.array(right + wrong) / max(right + wrong), abs=0.01)
    labels = svg.findall("text[@class='count']")
    said = [[int(one.text or "") for one in labels if (number(one, "y") < middle) is above] for above in (True, False)]
    assert said == [right, wrong]


def test_a_dot_stands_at_the_mean_confidence_and_the_share_that_is_right(run: RunData) -> None:
    evaluation = run.evaluations[-1]
    assert evaluation.outcomes is not None
    bins = reliability(evaluation.outcomes, BINS)

    svg = reliability_chart(bins)

    (ideal,) = svg.findall("polyline[@class='line ideal']")  # from 0, 0 to 1, 1
    (left, bottom), (right, top) = ([float(n) for n in end.split(",")] for end in ideal.get("points", "").split())
    dots = [(number(dot, "cx"), number(dot, "cy")) for dot in svg.iterfind("circle")]
    places = [((x - left) / (right - left), (y - bottom) / (top - bottom)) for x, y in dots]
    assert np.array(places) == pytest.approx(np.array([(one.confidence, one.accuracy) for one in bins]), abs=0.001)


# --- two runs


def cells(table: Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def last(run: RunData, prompts: set[str]) -> list[ResponseRow]:
    """What it said to these prompts in its last evaluation."""
    return [row for row in run.evaluations[-1].rows if row.prompt_id in prompts]


def share_right(rows: Sequence[ResponseRow]) -> float:
    return sum(row.right for row in rows) / len(rows)


def brier(rows: Sequence[ResponseRow]) -> float:
    return float(np.mean([((row.confidence or 0) - row.right) ** 2 for row in rows]))


def asked(one: Evaluation) -> set[str]:
    return {row.prompt_id for row in one.rows}


def test_the_first_run_is_in_the_first_column_and_a_difference_is_what_the_second_has_more(
    run: RunData, other: RunData
) -> None:
    both = asked(run.evaluations[-1]) & asked(other.evaluations[-1])
    assert len(both) == 8

    compared, _ = [table for part in comparison(("A", "B"), (run, other)) for table in part.iter("table")]

    header, *rows = cells(compared)
    assert header[:4] == ["", "A", "B", "difference"]
    shown = {row[0]: row[1:4] for row in rows}
    for name, of in {"accuracy": share_right, "Brier": brier}.items():
        first, second = (of(last(one, both)) for one in (run, other))
        assert first != second
        assert [float(cell) for cell in shown[name]] == pytest.approx([first, second, second - first], abs=ROUNDED)


def test_what_each_run_said_stands_in_its_column_beside_how_much_worse_the_second_did(
    run: RunData, other: RunData
) -> None:
    _, differing = [table for part in comparison(("A", "B"), (run, other)) for table in part.iter("table")]

    header, *rows = cells(differing)
    assert header[:3] == ["prompt", "A", "B"]
    assert len(rows) == 8
    for prompt, *said, difference in rows:
        ours, theirs = last(run, {prompt}), last(other, {prompt})
        assert ours != theirs
        for told, answers in zip(said, (ours, theirs), strict=True):
            assert told == ", ".join(f"{r.answer} {r.confidence:.2f} {'✓' if r.right else '✗'}" for r in answers)
        assert float(difference) == pytest.approx(brier(theirs) - brier(ours), abs=ROUNDED)
    worst = [abs(float(row[-1])) for row in rows]
    assert worst == sorted(worst, reverse=True)
