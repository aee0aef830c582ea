"""The front, the table and the files that a tuning ends in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.digests import evaluation_digest, training_digest
from cluster.predictions import PredictionRow, write_predictions
from cluster.sweep import read_sweep
from cluster.trade_off import Measured, places, report, table, with_front
from cluster.trials import Trial, give_up, planned
from rewards.bootstrap import Interval
from rewards.parse import render

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def measured(name: str, accuracy: float, brier: float) -> Measured:
    ece = Interval(0.05, 0.03, 0.08)
    around = {
        key: Interval(value, value - 0.05, value + 0.05) for key, value in (("accuracy", accuracy), ("brier", brier))
    }
    return Measured(name, {**around, "ece": ece})


SILENT = Measured("silent", {"accuracy": Interval(0.9, 0.8, 1.0)})  # states no confidence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    found = with_front([measured(str(number), *point) for number, point in enumerate(points)])
    return [number for number, one in enumerate(found) if one.front]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.6, 0.2)], [0]),
        ([(0.6, 0.2), (0.7, 0.3), (0.5, 0.1)], [0, 1, 2]),
        ([(0.6, 0.2), (0.7, 0.1)], [1]),
        ([(0.6, 0.2), (0.6, 0.1)], [1]),
        ([(0.6, 0.2), (0.7, 0.2)], [1]),
        ([(0.6, 0.2), (0.6, 0.2)], [0, 1]),
    ],
)
def test_the_front_is_whom_no_other_beats(points: list[tuple[float, float]], expected: list[int]) -> None:
    assert front(points) == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_front_beats_all_others_and_goes_up_with_the_brier_score(points: list[tuple[float, float]]) -> None:
    on = front(points)

    for number, (accuracy, brier) in enumerate(points):
        if number not in on:
            assert any(points[n][0] >= accuracy and points[n][1] <= brier for n in on)
    ordered = sorted((points[n][1], points[n][0]) for n in on)
    assert [accuracy for _, accuracy in ordered] == sorted(accuracy for _, accuracy in ordered)


def test_a_trial_without_confidences_is_in_the_table_and_nowhere_else() -> None:
    found = with_front([measured("a", 0.6, 0.2), SILENT])

    assert [one.front for one in found] == [True, False]
    assert [place.name for place in places(found)] == ["a"]
    assert table(found).splitlines()[-1].split() == ["silent", "0.900", "(0.800", "to", "1.000)", "-", "-", "-"]


def test_a_row_has_values_with_their_intervals_and_says_who_is_on_the_front() -> None:
    good, bad = table(with_front([measured("good", 0.6, 0.2), measured("bad", 0.5, 0.3)])).splitlines()[-2:]

    assert re.split(r"  +", good.strip()) == [
        "good",
        "0.600 (0.550 to 0.650)",
        "0.200 (0.150 to 0.250)",
        "-",
        "5.0 (3.0 to 8.0)",
        "front",
    ]
    assert bad.startswith(" bad")
    assert "front" not in bad


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    """Two that are finished, one that was given up, one that failed."""
    sweep = read_sweep([f"output={tmp_path}", "seed=1,2,3,4", "rl.steps=60"])
    found = planned(DEMO, sweep, None, 0, stopping=True)
    for trial in found:
        trial.run.stage(3).path.mkdir(parents=True)
    for trial, right in zip(found[:2], (3, 2), strict=True):
        stage = trial.run.stage(3)
        for name in trial.recipe.data.evaluation:
            rows = [
                PredictionRow(str(n), "mood", ("joy", "fear"), "joy" if n < right else "fear", response=said(trial))
                for n in range(4)
            ]
            write_predictions(stage.evaluation(name) / "predictions.jsonl", rows)
        stage.finish("training", training_digest(trial.recipe, 3))
        stage.finish("evaluation", evaluation_digest(trial.recipe, 3))
    (found[2].run.stage(3).path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    give_up(found[2].recipe)
    return found


def said(trial: Trial) -> str:
    return render(dict.fromkeys(trial.recipe.response.reasoning_elements, "x"), "joy", "0.6")


def test_a_tuning_ends_in_a_table_a_record_and_a_picture_of_each_evaluation_file(
    trials: list[Trial], tmp_path: Path
) -> None:
    told = report(trials, tmp_path)

    names = list(trials[0].recipe.data.evaluation)
    assert len(names) == 2
    assert "seed-3: given up, step 2 of 60" in told
    assert "seed-4: not finished, step 0 of 60" in told
    assert (tmp_path / "trade_off.txt").read_text() in f"{told}\n"
    record = json.loads((tmp_path / "trade_off.json").read_text())
    assert [one["state"].split(",")[0] for one in record["trials"]] == ["finished"] * 2 + ["given up", "not finished"]
    assert record["trials"][0]["settings"] == {"seed": "1"}
    for name in names:
        first, second = record["evaluation"][name]
        assert first["found"]["accuracy"]["value"] == 0.75
        assert first["found"]["brier"]["value"] == pytest.approx((3 * 0.4**2 + 0.6**2) / 4)
        assert [first["front"], second["front"]] == [True, False]
        assert len(ElementTree.parse(tmp_path / f"trade_off-{name}.svg").findall(".//{*}circle")) == 2
