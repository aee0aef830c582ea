"""The table a pipeline ends in, from the files that evaluations leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.final_table import final_table
from cluster.metrics_files import write_metrics
from cluster.run_folder import RunFolder
from rewards.baselines import CONSTANT, ISOTONIC
from rewards.metrics import Metrics
from rewards.tasks import OVERALL


def found(brier: float, excess: float | None = None, counted: int = 0) -> Metrics:
    return Metrics(n=10, n_confident=10, n_counted=counted, brier=brier, excess_brier=excess)


UNCONFIDENT = Metrics(n=10, n_confident=0, n_counted=0)


def evaluation(run: RunFolder, stage: int, metrics: Metrics, recalibrated: Metrics | None, name: str = "seen") -> None:
    """What the evaluation of a stage leaves; without a recalibrated one, it is of before there were baselines."""
    folder = run.stage(stage).evaluation(name)
    folder.mkdir(parents=True)
    write_metrics(folder / "metrics.json", {OVERALL: metrics})
    if recalibrated is not None:
        write_metrics(folder / "baselines.json", {CONSTANT: found(0.25), ISOTONIC: recalibrated})


def told(run: RunFolder, second: Metrics | None, third: Metrics) -> list[str]:
    """Lines of the table where stage 2 recalibrated is `second`."""
    evaluation(run, 1, UNCONFIDENT, None)
    evaluation(run, 2, found(0.3), second)
    evaluation(run, 3, third, None if second is None else third)
    return final_table(run, ["seen"]).splitlines()


def test_each_stage_with_confidences_has_a_row_of_its_recalibrated_ones(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("seen", "unseen"):
        evaluation(run, 1, UNCONFIDENT, None, name)
        evaluation(run, 2, found(0.3), found(0.22), name)
        evaluation(run, 3, found(0.2), found(0.19), name)

    rows = final_table(run, ["seen", "unseen"]).splitlines()[2:12]

    seen = ["stage 1, seen", "stage 2, seen", "stage 2 + isotonic, seen", "stage 3, seen", "stage 3 + isotonic, seen"]
    names = [*seen, *(name.replace("seen", "unseen") for name in seen)]
    assert [row.startswith(f" {name} ") for row, name in zip(rows, names, strict=True)] == [True] * 10
    assert ["0.220" in rows[2], "0.190" in rows[4]] == [True, True]


@pytest.mark.parametrize("reached", [0.23, 0.22])
def test_a_stage_3_that_recalibrating_stage_2_would_have_reached_is_told_so(tmp_path: Path, reached: float) -> None:
    *_, last = told(RunFolder(tmp_path), found(0.22), found(reached))

    assert last == (
        "On seen, stage 3 is no better than stage 2 recalibrated by isotonic regression: "
        f"Brier {reached:.4f} against 0.2200."
    )


def test_where_all_votes_are_known_the_excess_decides(tmp_path: Path) -> None:
    second, third = found(0.22, 0.01, counted=10), found(0.20, 0.02, counted=10)

    *_, last = told(RunFolder(tmp_path), second, third)

    assert last.endswith("excess Brier 0.0200 against 0.0100.")


def test_votes_on_some_alone_do_not_decide(tmp_path: Path) -> None:
    second, third = found(0.22, 0.01, counted=9), found(0.20, 0.02, counted=9)

    assert not any("no better" in line for line in told(RunFolder(tmp_path), second, third))


def test_a_stage_3_that_is_better_is_told_nothing(tmp_path: Path) -> None:
    assert not any("no better" in line for line in told(RunFolder(tmp_path), found(0.22), found(0.21)))


def test_a_stage_3_whose_readable_rows_alone_are_better_is_told_what_it_lost(tmp_path: Path) -> None:
    run, second = RunFolder(tmp_path), replace(found(0.24), accuracy=0.5, auroc=0.7, malformed=0.0)
    evaluation(run, 1, UNCONFIDENT, None)
    evaluation(run, 2, second, replace(second, brier=0.22, auroc=0.6))
    evaluation(run, 3, replace(second, brier=0.05, accuracy=0.1, auroc=0.65, malformed=0.8), None)

    *_, last = final_table(run, ["seen"]).splitlines()

    assert last == (
        "On seen, stage 3 is worse than stage 2: accuracy 0.100 against 0.500, AUROC 0.650 against 0.700, "
        "share of malformed responses 0.800 against 0.000."
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"accuracy": 0.4}, "accuracy 0.400"),
        ({"auroc": 0.6}, "AUROC 0.600"),
        ({"malformed": 0.2}, "share of malformed responses 0.200"),
        ({"accuracy": 0.49996}, None),  # the same in the table
        ({"accuracy": 0.6, "auroc": 0.8, "malformed": 0.0}, None),
        ({"auroc": None}, None),
    ],
)
def test_only_what_got_worse_is_named(tmp_path: Path, changed: dict[str, Any], named: str | None) -> None:
    run, second = RunFolder(tmp_path), replace(found(0.24), accuracy=0.5, auroc=0.7, malformed=0.1)
    evaluation(run, 1, UNCONFIDENT, None)
    evaluation(run, 2, second, None)
    evaluation(run, 3, replace(second, **changed), None)

    lines = [line for line in final_table(run, ["seen"]).splitlines() if "worse than" in line]

    assert [line.split(": ")[1].split(" against")[0] for line in lines] == ([named] if named else [])


def test_a_run_from_before_there_were_baselines_has_its_stages_alone(tmp_path: Path) -> None:
    lines = told(RunFolder(tmp_path), None, found(0.4))

    assert [line.split()[1] for line in lines if line.startswith(" stage")] == ["1,", "2,", "3,"]
    assert not any("no better" in line for line in lines)
