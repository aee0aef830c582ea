"""The trade-off as a picture: an SVG of its own, accuracy over Brier score, with intervals, and the front joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from cluster.svg import ACCENT, INK, Axis, axes, drawing, line, text, written
from rewards.bootstrap import Interval

_LEFT, _TOP, _WIDTH, _HEIGHT = 70.0, 50.0, 520.0, 400.0  # of the field that points are in; pixels
_BELOW = 60.0  # under it, for the ticks and the axis' name
_LINE = 18.0  # of the key
_CHARACTER = 7.0  # wide, at most, in its font


@dataclass(frozen=True, slots=True)
class Place:
    """A trial in the picture."""

    name: str
    brier: Interval
    accuracy: Interval
    front: bool


def picture(title: str, places: Sequence[Place]) -> str:
    """The SVG of an evaluation file's trials."""
    across = Axis.around([place.brier for place in places], _LEFT, _LEFT + _WIDTH)
    up = Axis.around([place.accuracy for place in places], _TOP + _HEIGHT, _TOP)
    key_left = _LEFT + _WIDTH + 30
    width = key_left + _CHARACTER * max((len(place.name) + 4 for place in places), default=0) + 20
    height = max(_TOP + _HEIGHT + _BELOW, _TOP + _LINE * (len(places) + 2))
    svg = drawing(width, height)
    text(svg, _LEFT, _TOP - 20, f"{title}: accuracy against Brier score, 95% intervals", size=15)
    axes(svg, across, up, "Brier score (lower is better)", "accuracy (higher is better)")
    _front(svg, [place for place in places if place.front], across, up)
    for number, place in enumerate(places, start=1):
        _point(svg, number, place, across, up)
        text(svg, key_left, _TOP + _LINE * number, f"{number}  {place.name}", fill=_colour(place))
    if any(place.front for place in places):
        text(svg, key_left, _TOP + _LINE * (len(places) + 1.5), "joined: the front", fill=ACCENT)
    return written(svg)


def _front(svg: Element, front: Sequence[Place], across: Axis, up: Axis) -> None:
    ordered = sorted(front, key=lambda place: place.brier.value)
    points = " ".join(f"{across.at(p.brier.value):.1f},{up.at(p.accuracy.value):.1f}" for p in ordered)
    SubElement(svg, "polyline", {"points": points, "fill": "none", "stroke": ACCENT, "stroke-dasharray": "5 4"})


def _point(svg: Element, number: int, place: Place, across: Axis, up: Axis) -> None:
    x, y, colour = across.at(place.brier.value), up.at(place.accuracy.value), _colour(place)
    group = SubElement(svg, "g")
    SubElement(group, "title").text = place.name  # shown where the pointer rests
    line(group, across.at(place.brier.low), y, across.at(place.brier.high), y, colour)
    line(group, x, up.at(place.accuracy.low), x, up.at(place.accuracy.high), colour)
    filled = colour if place.front else "white"
    SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", fill=filled, stroke=colour)
    text(group, x + 8, y + 17, str(number), fill=colour)  # below the line that joins the front


def _colour(place: Place) -> str:
    return ACCENT if place.front else INK
