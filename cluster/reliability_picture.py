"""The reliability diagram as a picture: an SVG of its own, share right over stated confidence, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import SubElement

from cluster.svg import ACCENT, INK, Axis, axes, drawing, line, text, written
from rewards.reliability import ReliabilityBin

_LEFT, _TOP, _SIDE = 70.0, 50.0, 400.0  # of the field that points are in; pixels
_RIGHT, _BELOW = 30.0, 60.0  # of it
_LARGEST = 12.0  # radius of a point that all outcomes are in


def picture(title: str, bins: Sequence[ReliabilityBin]) -> str:
    """The SVG of an evaluation file's bins; the area of a point is its bin's share of the outcomes."""
    svg = drawing(_LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BELOW)
    across, up = Axis(0.0, 1.0, _LEFT, _LEFT + _SIDE), Axis(0.0, 1.0, _TOP + _SIDE, _TOP)
    text(svg, _LEFT, _TOP - 20, f"{title}: is it as sure as it is right?", size=15)
    axes(svg, across, up, "stated confidence", "share right, 95% intervals")
    line(svg, across.at(0), up.at(0), across.at(1), up.at(1), INK)
    everything = sum(one.n for one in bins)
    for one in bins:
        x, y = across.at(one.confidence), up.at(one.accuracy)
        group = SubElement(svg, "g")
        told = f"{one.n} answers, confidence {one.confidence:.2f}, right {one.accuracy:.2f}"
        if one.interval is not None:
            low, high = one.interval
            line(group, x, up.at(low), x, up.at(high), ACCENT)
            told += f" ({low:.2f} to {high:.2f})"
        SubElement(group, "title").text = told  # shown where the pointer rests
        radius = max(2.0, _LARGEST * (one.n / everything) ** 0.5)
        SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}", fill=ACCENT)
    return written(svg)
