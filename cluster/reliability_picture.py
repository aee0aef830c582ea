"""The reliability diagram as a picture: an SVG of its own, share right over stated confidence, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import SubElement

from cluster.svg import ACCENT, INK, Axis, axes, drawing, line, text, written
from rewards.reliability import Bin

_LEFT, _TOP, _SIDE = 70.0, 50.0, 400.0  # of the field that points are in; pixels
_RIGHT, _BELOW = 30.0, 60.0  # of it
_LARGEST = 12.0  # radius of a point that all outcomes are in


def picture(title: str, bins: Sequence[Bin]) -> str:
    """The SVG of an evaluation file's bins; the area of a point is its bin's share of the outcomes."""
    svg = drawing(_LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BELOW)
    across, up = Axis(0.0, 1.0, _LEFT, _LEFT + _SIDE), Axis(0.0, 1.0, _TOP + _SIDE, _TOP)
    text(svg, _LEFT, _TOP - 20, f"{title}: is it as sure as it is right?", size=15)
    axes(svg, across, up, "stated confidence", "share right, 95% intervals")
    line(svg, across.at(0), up.at(0), across.at(1), up.at(1), INK)
    everything = sum(one.n for one in bins)
    for one in bins:
        x, y = across.at(one.mean_confidence), up.at(one.right.value)
        group = SubElement(svg, "g")
        SubElement(group, "title").text = (  # shown where the pointer rests
            f"{one.n} answers, confidence {one.mean_confidence:.2f}, right {one.right.value:.2f} "
            f"({one.right.low:.2f} to {one.right.high:.2f})"
        )
        line(group, x, up.at(one.right.low), x, up.at(one.right.high), ACCENT)
        radius = max(2.0, _LARGEST * (one.n / everything) ** 0.5)
        SubElement(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}", fill=ACCENT)
    return written(svg)
