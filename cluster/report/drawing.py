"""What all charts are drawn with: a field with two axes, in SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from cluster.svg import Axis

WIDTH = 360.0  # of every chart; a phone shows it about as large as it is
LINE = 13.0  # between labels


@dataclass(frozen=True, slots=True)
class Field:
    """Where points are: `across` grows to the right, `up` grows upwards."""

    svg: Element
    across: Axis
    up: Axis

    def grid(self, across: Sequence[float], up: Sequence[float], *, percent: bool = False, shown: bool = True) -> None:
        """Faint lines at these numbers, labelled; without `shown` the horizontal axis has no labels."""
        for number in up:
            line(self.svg, self.across.start, self.up.at(number), self.across.end, self.up.at(number), "grid")
            label = f"{100 * number:g}%" if percent else short(number)
            text(self.svg, self.across.start - 6, self.up.at(number) + 3.5, label, "tick end")
        for number in across:
            line(self.svg, self.across.at(number), self.up.start, self.across.at(number), self.up.end, "grid")
            if shown:
                text(self.svg, self.across.at(number), self.up.start + 15, short(number), "tick middle")

    def titles(self, across: str, up: str, below: float = 32.0) -> None:
        """The axes' names."""
        text(self.svg, (self.across.start + self.across.end) / 2, self.up.start + below, across, "axis middle")
        middle = (self.up.start + self.up.end) / 2
        named = text(self.svg, 11, middle, up, "axis middle")
        named.set("transform", f"rotate(-90 11 {middle:g})")

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> Element:
        """A line through points."""
        places = " ".join(f"{self.across.at(x):.1f},{self.up.at(y):.1f}" for x, y in points)
        return SubElement(self.svg, "polyline", {"points": places, "class": f"line {kind}"})

    def dot(self, x: float, y: float, kind: str, radius: float = 3.5) -> Element:
        """A point."""
        place = {"cx": f"{self.across.at(x):.1f}", "cy": f"{self.up.at(y):.1f}", "r": f"{radius:g}"}
        return SubElement(self.svg, "circle", {**place, "class": f"dot {kind}"})


def canvas(height: float) -> Element:
    """An empty drawing."""
    return Element("svg", {"viewBox": f"0 0 {WIDTH:g} {height:g}", "role": "img"})


def line(svg: Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    """A straight line between two places of the drawing."""
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(svg, "line", {**{name: f"{value:.1f}" for name, value in ends.items()}, "class": kind})


def bar(svg: Element, x: float, y: float, width: float, height: float, kind: str) -> Element:
    """A rectangle."""
    sizes = {"x": x, "y": y, "width": width, "height": height}
    return SubElement(svg, "rect", {**{name: f"{value:.1f}" for name, value in sizes.items()}, "class": f"bar {kind}"})


def text(svg: Element, x: float, y: float, words: str, kind: str) -> Element:
    """Words at a place."""
    made = SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind})
    made.text = words
    return made


def tip(of: Element, words: str) -> None:
    """What is shown where the pointer rests."""
    SubElement(of, "title").text = words


def short(number: float) -> str:
    """A tick's label; thousands as 12k."""
    return f"{number / 1000:g}k" if abs(number) >= 10_000 else f"{number:g}"


def apart(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights for labels, as near to the wanted ones as LINE between any two and the field's edges allow."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    floor = low
    for i in order:
        placed[i] = floor = max(wanted[i], floor)
        floor += LINE
    ceiling = high
    for i in reversed(order):
        placed[i] = ceiling = min(placed[i], ceiling)
        ceiling -= LINE
    return placed
