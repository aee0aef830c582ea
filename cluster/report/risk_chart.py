"""Risk against coverage: what is wrong among the answers that a threshold on the confidence keeps."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

import numpy as np

from cluster.report.drawing import WIDTH, Field, apart, canvas, text
from cluster.svg import Axis
from rewards.bootstrap import Interval
from rewards.outcomes import Outcomes
from rewards.selective import risk_by_coverage
from rewards.tally import tally

_LEFT, _RIGHT, _TOP, _HEIGHT, _BELOW = 46.0, 92.0, 10.0, 210.0, 42.0


def risk_chart(named: Mapping[str, tuple[Outcomes, str]]) -> Element:
    """A line for each set of outcomes that has confidences, by its name, with the class that colours it."""
    svg = canvas(_TOP + _HEIGHT + _BELOW)
    curves = {name: (_curve(outcomes), kind) for name, (outcomes, kind) in named.items() if outcomes.confident.any()}
    highest = max((risk for points, _ in curves.values() for _, risk in points), default=1.0)
    up = Axis.around([Interval(0.0, 0.0, highest)], _TOP + _HEIGHT, _TOP)
    field = Field(svg, Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT), Axis(0.0, up.high, up.start, up.end))
    field.grid((0.0, 0.25, 0.5, 0.75, 1.0), field.up.ticks, percent=True)
    field.titles("coverage: share of answers kept", "risk: share of them wrong")
    for points, kind in curves.values():
        field.path(points, kind)
        if len(points) <= 40:
            for coverage, risk in points:
                field.dot(coverage, risk, kind, 2.0)
    ends = [field.up.at(points[-1][1]) + 4 for points, _ in curves.values()]
    for (name, (_, kind)), place in zip(curves.items(), apart(ends, _TOP + 10, _TOP + _HEIGHT), strict=True):
        text(svg, WIDTH - _RIGHT + 8, place, name, f"label {kind}")
    return svg


def _curve(outcomes: Outcomes) -> list[tuple[float, float]]:
    stated = outcomes.confident
    coverage, risk = risk_by_coverage(tally(outcomes.confidence[stated], outcomes.correct[stated]))
    return list(zip(np.asarray(coverage).tolist(), np.asarray(risk).tolist(), strict=True))
