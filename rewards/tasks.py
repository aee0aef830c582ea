"""Metrics by task, and of all tasks together: each task weighing the same, and each response."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from rewards.correctness import normalise_answer
from rewards.metrics import Metrics, metrics
from rewards.outcomes import Outcomes
from rewards.vecbench import GROUPS

MACRO = "macro"
OVERALL = "overall"

_SIZES = ("n", "n_confident", "n_counted", "unscored")
_SETTINGS = ("ece_bins", "log_loss_clip")
_NOT_AVERAGED = ("distinct_confidences", "malformed_causes")  # tasks may have the same ones or others


def by_task(
    outcomes: Outcomes, bins: int = 10, same: Callable[[str], Hashable] = normalise_answer
) -> dict[str, Metrics]:
    """Metrics of each task, in order of appearance, and of what is made of several of them.

    VECBench's groups follow, those of which there are tasks; "macro" of several tasks; "overall" of all outcomes.
    """
    unscored = outcomes.unscored.values()
    names = list(dict.fromkeys([*outcomes.task, *unscored]))
    if taken := {MACRO, OVERALL, *GROUPS}.intersection(names):
        raise ValueError(f'got a task named "{min(taken)}", which names the metrics of several tasks; rename the task')

    def of(members: Sequence[str]) -> Metrics:
        theirs = np.array([task in members for task in outcomes.task], dtype=np.bool_)
        return replace(metrics(outcomes.where(theirs), bins, same), unscored=sum(task in members for task in unscored))

    found = {name: of([name]) for name in names}
    together = {MACRO: macro(list(found.values()))} if len(found) > 1 else {}
    groups = {group: members for group, members in GROUPS.items() if not set(members).isdisjoint(names)}
    pooled = {group: of(list(members)) for group, members in groups.items()}
    return found | pooled | together | {OVERALL: of(names)}


def macro(tasks: Sequence[Metrics]) -> Metrics:
    """Mean of each metric over the tasks, with the sum of their sizes.

    A metric that is undefined for one of them is undefined: a mean over those that are left would be over
    other tasks for another model.
    """
    names = [field.name for field in fields(Metrics)]
    return Metrics(**{name: _combined(name, [getattr(one, name) for one in tasks]) for name in names})


def _combined(name: str, values: Sequence[Any]) -> Any:
    if name in _SIZES:
        return sum(values)
    if name in _NOT_AVERAGED or None in values:
        return None
    return values[0] if name in _SETTINGS else float(np.mean(values))
