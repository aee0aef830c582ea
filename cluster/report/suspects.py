"""Which responses look like sabotage, and whether the reward mix paid for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import replace

import numpy as np

from cluster.report.responses import ResponseRow
from rewards.correctness import normalise_answer
from rewards.suspicion import sabotage_suspects


def with_suspects(rows: list[ResponseRow], same: Callable[[str], Hashable] = normalise_answer) -> list[ResponseRow]:
    """The rows of one source, those named that look like sabotage; answers for which `same` gives the same are one.

    Beside each suspect stands what its group's most frequent answer earned on average: where that is less than the
    suspect did, the mix paid for being wrong and saying so.
    """
    suspects = sabotage_suspects(
        [row.group for row in rows],
        [row.answer for row in rows],
        np.array([np.nan if row.confidence is None else row.confidence for row in rows]),
        same,
    )
    named = {rows[i].group for i in np.flatnonzero(suspects)}
    siblings: defaultdict[str, list[ResponseRow]] = defaultdict(list)
    for row in rows:
        if row.group in named:
            siblings[row.group].append(row)
    return [
        replace(row, suspect=True, majority_total=_majority_total(siblings[row.group], same)) if suspect else row
        for row, suspect in zip(rows, suspects, strict=True)
    ]


def _majority_total(group: list[ResponseRow], same: Callable[[str], Hashable]) -> float | None:
    earned: defaultdict[Hashable, list[float]] = defaultdict(list)
    for row in group:
        if row.answer is not None and row.worth is not None:
            earned[same(row.answer)].append(row.worth.total)
    return float(np.mean(max(earned.values(), key=len))) if earned else None
