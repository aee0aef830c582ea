"""The stages and what they must beat, in one table: the main numbers with intervals, and every number below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from cluster.interval_tables import shown_range
from cluster.metrics_table import LEGEND, cells
from cluster.report.evaluations import Evaluation
from cluster.report.markup import Child, node, table
from rewards.bootstrap import Interval, intervals
from rewards.metrics import Metrics

_MAIN = {"accuracy": "accuracy", "ECE": "ece", "Brier": "brier", "excess": "excess_brier", "AUROC": "auroc"}
_MAIN |= {"AURC": "aurc", "at 10%": "", "malformed": "", "mean c": "mean_confidence", "n": ""}
_TITLES = {"ECE": "ECE, points", "at 10%": "kept at 10% risk", "mean c": "mean confidence", "excess": "excess Brier"}


def stage_table(evaluations: Sequence[Evaluation]) -> Element:
    """A row for each stage and each of its baselines, with 95% intervals of the stages' own numbers."""
    rows: list[list[Child]] = []
    for one in evaluations:
        found = _intervals(one)
        rows.append([one.title, *(_cell(one.metrics, header, found.get(name)) for header, name in _MAIN.items())])
        rows += [[_named(one, name), *(cells(of)[h] for h in _MAIN)] for name, of in one.baselines.items()]
    every = [(title, cells(metrics)) for title, metrics in _all(evaluations)]
    headers = list(every[0][1]) if every else []
    return node(
        "div",
        None,
        table(["", *(_TITLES.get(header, header) for header in _MAIN)], rows, {"class": "stages"}),
        node(
            "p",
            {"class": "note"},
            "Small: 95% intervals over prompts (1,000 resamples; that of the ECE lies high), and behind ± what a "
            "perfectly calibrated model would show. Indented: the same answers with other confidences.",
        ),
        node(
            "details",
            None,
            node("summary", None, "Every number"),
            table(["", *headers], [[title, *of.values()] for title, of in every]),
            node("p", {"class": "note"}, LEGEND),
        ),
    )


def _all(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, Metrics]]:
    for one in evaluations:
        yield one.title, one.metrics
        yield from ((f"{one.title}: {name}", of) for name, of in one.baselines.items())


def _named(one: Evaluation, baseline: str) -> Element:
    return node("span", {"class": "baseline"}, f"stage {one.stage} {baseline}")


def _intervals(one: Evaluation) -> dict[str, Interval]:
    if one.outcomes is None or len(set(one.outcomes.prompt_id)) < 2:
        return {}
    return intervals(one.outcomes, bins=one.bins)


def _cell(metrics: Metrics, header: str, interval: Interval | None) -> Child:
    value = cells(metrics)[header]
    if interval is None:
        return value
    name = _MAIN[header]
    return node("span", None, value, node("small", None, shown_range(name, interval)))
