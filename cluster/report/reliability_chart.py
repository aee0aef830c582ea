"""The reliability diagram, and under it on the same axis how often each confidence is stated, right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from cluster.report.drawing import WIDTH, Field, bar, canvas, line, text, tip
from cluster.svg import Axis
from rewards.reliability import ReliabilityBin

_LEFT, _RIGHT, _TOP = 46.0, 12.0, 10.0
_SIDE = WIDTH - _LEFT - _RIGHT  # the diagram is square
_BETWEEN, _HALF = 20.0, 44.0  # the space over the histogram; its height on either side of its middle
_BELOW = 44.0
_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Element:
    """Dots at mean confidence and share right, with 95% intervals; hollow ones have too few responses for that."""
    bottom = _TOP + _SIDE
    middle = bottom + _BETWEEN + _HALF
    svg = canvas(middle + _HALF + _BELOW)
    across = Axis(0.0, 1.0, _LEFT, _LEFT + _SIDE)
    field = Field(svg, across, Axis(0.0, 1.0, bottom, _TOP))
    field.grid(_FIFTHS, _FIFTHS, shown=False)
    field.path([(0.0, 0.0), (1.0, 1.0)], "ideal")
    _along_diagonal(field, "as sure as right", 0.04)
    for one in bins:
        _bin(field, one)
    field.titles("", "share of answers that are right")
    _histogram(svg, across, middle, bins)
    for number in _FIFTHS:
        text(svg, across.at(number), middle + _HALF + 16, f"{number:g}", "tick middle")
    text(svg, _LEFT + _SIDE / 2, middle + _HALF + 34, "stated confidence", "axis middle")
    return svg


def _along_diagonal(field: Field, words: str, at: float) -> None:
    x, y = field.across.at(at) + 9, field.up.at(at) + 9
    text(field.svg, x, y, words, "faint").set("transform", f"rotate(-45 {x:.1f} {y:.1f})")


def _bin(field: Field, one: ReliabilityBin) -> None:
    x = field.across.at(one.confidence)
    told = f"{one.low:g} to {one.high:g}: {one.right} of {one.n} right, mean confidence {one.confidence:.3f}"
    if one.interval is not None:
        low, high = one.interval
        line(field.svg, x, field.up.at(low), x, field.up.at(high), "interval")
        told += f", 95% interval {low:.3f} to {high:.3f}"
    few = "" if one.interval is not None else " hollow"
    tip(field.dot(one.confidence, one.accuracy, f"main{few}", 4.5), told)


def _histogram(svg: Element, across: Axis, middle: float, bins: Sequence[ReliabilityBin]) -> None:
    most = max((max(one.right, one.n - one.right) for one in bins), default=1)
    line(svg, across.start, middle, across.end, middle, "base")
    text(svg, across.start - 6, middle - 8, "right", "tick end right")
    text(svg, across.start - 6, middle + 15, "wrong", "tick end wrong")
    for one in bins:
        left, width = across.at(one.low) + 1.5, across.at(one.high) - across.at(one.low) - 3
        for count, kind, up in ((one.right, "right", True), (one.n - one.right, "wrong", False)):
            height = (_HALF - 12) * count / most
            bar(svg, left, middle - height if up else middle, width, height, kind)
            if count:
                text(svg, left + width / 2, middle - height - 3 if up else middle + height + 9, f"{count}", "count")
