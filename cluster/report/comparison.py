"""Two runs on the prompts that both were evaluated on: differences with paired intervals, and where they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from cluster.interval_tables import METRIC_NAMES, shown_metric, shown_range
from cluster.report.evaluations import Evaluation
from cluster.report.markup import Child, figure, node, table
from cluster.report.responses import ResponseRow
from cluster.report.risk_chart import risk_chart
from cluster.report.run_data import RunData
from rewards.bootstrap import Difference, compare
from rewards.outcomes import Outcomes

_PROMPTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Pair:
    """The last evaluations of two runs on one file, cut down to the prompts of both."""

    first: Evaluation
    second: Evaluation
    held: tuple[Outcomes, Outcomes]
    prompts: int


def comparison(names: tuple[str, str], runs: tuple[RunData, RunData]) -> Iterator[Element]:
    """A table, a chart and a list of prompts for each evaluation file that both runs have."""
    pairs = list(_pairs(*runs))
    if not pairs:
        yield node("p", None, "The runs share no evaluation on two prompts or more: there is nothing to compare.")
    for pair in pairs:
        titles = [f"{name}: {one.title}" for name, one in zip(names, (pair.first, pair.second), strict=True)]
        found = compare(*pair.held, bins=pair.first.bins)
        shown = {name: (held, kind) for name, held, kind in zip(names, pair.held, ("c1", "c2"), strict=True)}
        yield node("h3", None, f"{titles[0]} against {titles[1]}, {pair.prompts:,} prompts of both")
        yield node(
            "div",
            {"class": "pair"},
            node("div", None, table(["", *names, "difference", "95% interval", "opposed"], list(_rows(found)))),
            figure("Risk by coverage", "lower is better", risk_chart(shown)),
        )
        yield _most_different(names, pair)


def _pairs(first: RunData, second: RunData) -> Iterator[_Pair]:
    ours, theirs = ({one.name: one for one in run.evaluations if one.stage > 1} for run in (first, second))  # the last
    for name in ours:
        if name not in theirs:
            continue
        one, other = ours[name], theirs[name]
        if one.outcomes is None or other.outcomes is None:
            continue
        asked = [list(zip(held.prompt_id, held.task, strict=True)) for held in (one.outcomes, other.outcomes)]
        shared = set(asked[0]) & set(asked[1])
        if len({prompt for prompt, _ in shared}) < 2:
            continue
        kept = [np.array([key in shared for key in keys]) for keys in asked]
        held = (one.outcomes.where(kept[0]), other.outcomes.where(kept[1]))
        yield _Pair(one, other, held, len({prompt for prompt, _ in shared}))


def _rows(found: Mapping[str, Difference]) -> Iterator[list[Child]]:
    for name, one in found.items():
        clear = {"class": "clear"} if one.low > 0 or one.high < 0 else None
        yield [
            METRIC_NAMES[name] + (", points" if name == "ece" else ""),
            shown_metric(name, one.first),
            shown_metric(name, one.second),
            node("span", clear, shown_metric(name, one.value, "+")),
            shown_range(name, one, "+"),
            f"{one.opposed:.3f}",
        ]


def _most_different(names: tuple[str, str], pair: _Pair) -> Element:
    """The prompts on which the Brier scores are furthest apart, the second run's worst first."""
    briers = [_brier_by_prompt(held) for held in pair.held]
    said = [_by_prompt(one.rows) for one in (pair.first, pair.second)]
    shared = [prompt for prompt in briers[0] if prompt in briers[1]]
    differences = {prompt: briers[1][prompt] - briers[0][prompt] for prompt in shared}
    ordered = sorted(shared, key=lambda prompt: -abs(differences[prompt]))[:_PROMPTS_SHOWN]
    rows: list[list[Child]] = [
        [prompt, _said(said[0][prompt]), _said(said[1][prompt]), f"{differences[prompt]:+.3f}"] for prompt in ordered
    ]
    summary = node("summary", None, f"The {len(rows)} prompts on which they differ most")
    headers = ["prompt", *names, "Brier, difference"]
    return node("details", None, summary, table(headers, rows, {"class": "said"}))


def _brier_by_prompt(held: Outcomes) -> dict[str, float]:
    squares: defaultdict[str, list[float]] = defaultdict(list)
    stated = np.flatnonzero(held.confident)
    for i, square in zip(stated, (held.confidence - held.correct)[stated] ** 2, strict=True):
        squares[held.prompt_id[i]].append(float(square))
    return {prompt: float(np.mean(found)) for prompt, found in squares.items()}


def _by_prompt(rows: Sequence[ResponseRow]) -> Mapping[str, list[ResponseRow]]:
    found: defaultdict[str, list[ResponseRow]] = defaultdict(list)
    for row in rows:
        found[row.prompt_id].append(row)
    return found


def _said(rows: Sequence[ResponseRow]) -> str:
    """What a run answered to a prompt, such as `joy 0.62 ✓, fear 0.40 ✗, malformed`."""
    marks = {True: "✓", False: "✗"}
    return ", ".join(
        f"{row.answer} {row.confidence:.2f} {marks[row.right]}"
        if row.answer is not None and row.confidence is not None
        else "malformed"
        for row in rows
    )
