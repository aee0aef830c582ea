"""The trade-off as a picture: an SVG of its own, accuracy over Brier score, with intervals, and the front joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from rewards.bootstrap import Interval

_LEFT, _TOP, _WIDTH, _HEIGHT = 70.0, 50.0, 520.0, 400.0  # of the field that points are in; pixels
_BELOW = 60.0  # under it, for the ticks and the axis' name
_LINE = 18.0  # of the key
_CHARACTER = 7.0  # wide, at most, in its font
_TICKS_AT_MOST = 6
_EDGE = 0.06  # of the field's range, left free around the intervals
_NARROWEST = 0.01  # range of an axis
_INK, _FAINT, _ACCENT = "#222", "#ddd", "#c0392b"


@dataclass(frozen=True, slots=True)
class Place:
    """A trial in the picture."""

    name: str
    brier: Interval
    accuracy: Interval
    front: bool


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


def picture(title: str, places: Sequence[Place]) -> str:
    """The SVG of an evaluation file's trials."""
    across = Axis.around([place.brier for place in places], _LEFT, _LEFT + _WIDTH)
    up = Axis.around([place.accuracy for place in places], _TOP + _HEIGHT, _TOP)
    key_left = _LEFT + _WIDTH + 30
    width = key_left + _CHARACTER * max((len(place.name) + 4 for place in places), default=0) + 20
    height = max(_TOP + _HEIGHT + _BELOW, _TOP + _LINE * (len(places) + 2))
    svg = Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}", "font-family": "sans-serif"},
        width=f"{width:g}",
        height=f"{height:g}",
    )
    SubElement(svg, "rect", width="100%", height="100%", fill="white")
    _text(svg, _LEFT, _TOP - 20, f"{title}: accuracy against Brier score, 95% intervals", size=15)
    _axes(svg, across, up)
    _front(svg, [place for place in places if place.front], across, up)
    for number, place in enumerate(places, start=1):
        _point(svg, number, place, across, up)
        _text(svg, key_left, _TOP + _LINE * number, f"{number}  {place.name}", fill=_colour(place))
    if any(place.front for place in places):
        _text(svg, key_left, _TOP + _LINE * (len(places) + 1.5), "joined: the front", fill=_ACCENT)
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _axes(svg: Element, across: Axis, up: Axis) -> None:
    left, right, bottom, top = across.start, across.end, up.start, up.end
    for tick in across.ticks:
        _line(svg, across.at(tick), bottom, across.at(tick), top, _FAINT)
        _text(svg, across.at(tick), bottom + 18, f"{tick:g}", anchor="middle")
    for tick in up.ticks:
        _line(svg, left, up.at(tick), right, up.at(tick), _FAINT)
        _text(svg, left - 8, up.at(tick) + 4, f"{tick:g}", anchor="end")
    _line(svg, left, bottom, right, bottom, _INK)
    _line(svg, left, bottom, left, top, _INK)
    _text(svg, (left + right) / 2, bottom + 42, "Brier score (lower is better)", anchor="middle")
    name = _text(svg, 20, (bottom + top) / 2, "accuracy (higher is better)", anchor="middle")
    name.set("transform", f"rotate(-90 20 {(bottom + top) / 2:g})")


def _front(svg: Element, front: Sequence[Place], across: Axis, up: Axis) -> None:
    ordered = sorted(front, key=lambda place: place.brier.value)
    points = " ".join(f"{across.at(p.brier.value):.1f},{up.at(p.accuracy.value):.1f}" for p in ordered)
    SubElement(svg, "polyline", {"points": points, "fill": "none", "stroke": _ACCENT, "stroke-dasharray": "5 4"})


def _point(svg: Element, number: int, place: Place, across: Axis, up: Axis) -> None:
    x, y, colour = across.at(place.brier.value), up.at(place.accuracy.value), _colour(place)
    group = SubElement(svg, "g")
    SubElement(group, "title").text = place.name  # shown where the pointer rests
    _line(group, across.at(place.brier.low), y, across.at(place.brier.high), y, colour)
    _line(group, x, up.at(place.accuracy.low), x, up.at(place.accuracy.high), colour)
    filled = colour if place.front else "white"
    SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", fill=filled, stroke=colour)
    _text(group, x + 8, y + 17, str(number), fill=colour)  # below the line that joins the front


def _colour(place: Place) -> str:
    return _ACCENT if place.front else _INK


def _line(parent: Element, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {name: f"{value:.1f}" for name, value in ends.items()}, stroke=colour)


def _text(
    parent: Element, x: float, y: float, text: str, *, anchor: str = "start", fill: str = _INK, size: int = 13
) -> Element:
    made = SubElement(
        parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": str(size)}, fill=fill
    )
    made.text = text
    return made
