"""Two runs on the prompts that both were evaluated on: differences with paired intervals, and where they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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


def comparison(names: tuple[str, str], runs: tuple[RunData, RunData]) -> list[Element]:
    """A table, a chart and a list of prompts for each evaluation file that both runs have, or why there are none."""
    ours, theirs = ({one.name: one for one in run.evaluations if one.stage > 1} for run in runs)  # the last
    parts = [part for name in ours if name in theirs for part in _compared(names, ours[name], theirs[name])]
    return parts or [
        node("p", None, "The runs share no evaluation on two prompts or more: there is nothing to compare.")
    ]


def _compared(names: tuple[str, str], one: Evaluation, other: Evaluation) -> Iterator[Element]:
    """Nothing where they share too few prompts."""
    if one.outcomes is None or other.outcomes is None:
        told = [f"in {name} {run.unjudged}" for name, run in zip(names, (one, other), strict=True) if run.unjudged]
        yield node("p", None, f"On {one.name} there is nothing to compare: {'; '.join(told)}.")
    elif (held := _shared(one.outcomes, other.outcomes)) is not None:
        titles = [f"{name}: {run.title}" for name, run in zip(names, (one, other), strict=True)]
        found = compare(*held, bins=one.bins)
        shown = {name: (of, kind) for name, of, kind in zip(names, held, ("c1", "c2"), strict=True)}
        yield node("h3", None, f"{titles[0]} against {titles[1]}, {len(set(held[0].prompt_id)):,} prompts of both")
        yield node(
            "div",
            {"class": "pair"},
            node("div", None, table(["", *names, "difference", "95% interval", "opposed"], list(_rows(found)))),
            figure("Risk by coverage", "lower is better", risk_chart(shown)),
        )
        yield _most_different(names, (one, other), held)


def _shared(ours: Outcomes, theirs: Outcomes) -> tuple[Outcomes, Outcomes] | None:
    """Both, cut down to the prompts of both; None where those are fewer than two."""
    asked = [list(zip(held.prompt_id, held.task, strict=True)) for held in (ours, theirs)]
    shared = set(asked[0]) & set(asked[1])
    if len({prompt for prompt, _ in shared}) < 2:
        return None
    kept = [np.array([key in shared for key in keys]) for keys in asked]
    return ours.where(kept[0]), theirs.where(kept[1])


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


def _most_different(
    names: tuple[str, str], evaluations: tuple[Evaluation, Evaluation], held: tuple[Outcomes, Outcomes]
) -> Element:
    """The prompts on which the Brier scores are furthest apart, the second run's worst first."""
    briers = [_brier_by_prompt(of) for of in held]
    said = [_by_prompt(one.rows) for one in evaluations]
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
