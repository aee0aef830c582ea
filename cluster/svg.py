"""What the pictures share: SVGs of their own, with axes, lines and text in one style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from rewards.bootstrap import Interval

INK, FAINT, ACCENT = "#222", "#ddd", "#c0392b"
_TICKS_AT_MOST = 6
_EDGE = 0.06  # of the field's range, left free around the intervals
_NARROWEST = 0.01  # range of an axis


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers from `low` to `high`, on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, shown: Sequence[Interval], start: float, end: float) -> Axis:
        """One on which all of these have room; of 0 to 1 where there is none."""
        low = min((one.low for one in shown), default=0.0)
        high = max((one.high for one in shown), default=1.0)
        free = max(_EDGE * (high - low), (_NARROWEST - (high - low)) / 2)
        return cls(low - free, high + free, start, end)

    def at(self, number: float) -> float:
        """The pixel of a number."""
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers on it."""
        rough = (self.high - self.low) / _TICKS_AT_MOST
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(number * step, 10) for number in range(first, last + 1)]


def drawing(width: float, height: float) -> Element:
    """An empty picture, white, of so many pixels."""
    svg = Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}", "font-family": "sans-serif"},
        width=f"{width:g}",
        height=f"{height:g}",
    )
    SubElement(svg, "rect", width="100%", height="100%", fill="white")
    return svg


def written(svg: Element) -> str:
    """The picture as a file's text."""
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def axes(svg: Element, across: Axis, up: Axis, across_name: str, up_name: str) -> None:
    """Both with their ticks, a grid, and their names."""
    left, right, bottom, top = across.start, across.end, up.start, up.end
    for tick in across.ticks:
        line(svg, across.at(tick), bottom, across.at(tick), top, FAINT)
        text(svg, across.at(tick), bottom + 18, f"{tick:g}", anchor="middle")
    for tick in up.ticks:
        line(svg, left, up.at(tick), right, up.at(tick), FAINT)
        text(svg, left - 8, up.at(tick) + 4, f"{tick:g}", anchor="end")
    line(svg, left, bottom, right, bottom, INK)
    line(svg, left, bottom, left, top, INK)
    text(svg, (left + right) / 2, bottom + 42, across_name, anchor="middle")
    name = text(svg, 20, (bottom + top) / 2, up_name, anchor="middle")
    name.set("transform", f"rotate(-90 20 {(bottom + top) / 2:g})")


def line(parent: Element, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
    """From one place to another, in pixels."""
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {name: f"{value:.1f}" for name, value in ends.items()}, stroke=colour)


def text(
    parent: Element, x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, size: int = 13
) -> Element:
    """At a place, in pixels."""
    made = SubElement(
        parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": str(size)}, fill=fill
    )
    made.text = words
    return made
