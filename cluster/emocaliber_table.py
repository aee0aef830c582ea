"""The numbers of EmoCaliber's released evaluator as its two tables, plain and aligned; in percent points."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cluster.metrics_table import plain_lines
from cluster.score_released import ReleasedScore
from rewards.released.evaluator import THRESHOLDS, Answers, Evaluation, Group
from rewards.vecbench import TASKS

UNDEFINED = "N/A"

LEGEND = """\
As the released evaluator has them. A prediction is a substring of the answer. Overall is not the accuracy over the
tasks: it searches the reasoning too. Group Acc is of the rows with a confidence, F1 and #Samples of all. A confidence
of 1 is in no bin of ECE. At a threshold that no row reaches, Acc and F1 are 0."""


def emocaliber_table(found: ReleasedScore) -> str:
    """The table of tasks and groups, that of thresholds, a legend, and what was left out."""
    left_out = [f"Left out: {count} x {cause}." for cause, count in found.left_out.items()]
    evaluation = found.evaluation
    return "\n".join(
        [*plain_lines(_tasks_and_groups(evaluation)), "", *plain_lines(_thresholds(evaluation)), LEGEND, *left_out]
    )


def _tasks_and_groups(evaluation: Evaluation) -> Table:
    table = _table("Task/Group", "Acc", "F1", "ECE", "Brier", "ROC AUC", "#Samples")
    for task in TASKS:
        if task in evaluation.tasks:
            table.add_row(task, *_answers(evaluation.tasks[task]))
    for name, group in evaluation.groups.items():
        table.add_row(name, *_group(group))
    table.add_row("Overall", *_answers(evaluation.overall))
    return table


def _answers(found: Answers) -> list[str]:
    return [_points(found.accuracy), _points(found.f1), *[UNDEFINED] * 3, str(found.samples)]


def _group(group: Group) -> list[str]:
    calibration = (group.ece, group.brier, group.auroc)
    if group.auroc is None:  # as released: ECE and Brier score are not shown without it
        calibration = (None, None, None)
    return [_points(value) for value in (group.accuracy, group.f1, *calibration)] + [str(group.samples)]


def _thresholds(evaluation: Evaluation) -> Table:
    table = _table(
        "Threshold", *(f"{name} {column}" for name in evaluation.groups for column in ("Acc", "F1", "Coverage"))
    )
    for position, threshold in enumerate(THRESHOLDS):
        cells = [cell for group in evaluation.groups.values() for cell in _at(group, position)]
        table.add_row(f"{threshold:.1f}", *cells)
    return table


def _at(group: Group, position: int) -> Iterator[str]:
    if not group.samples:
        yield from [UNDEFINED] * 3
        return
    found = group.thresholds[position]
    yield from (_points(value) for value in (found.accuracy, found.f1, found.coverage))


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for header in others:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _points(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:.2f}"
