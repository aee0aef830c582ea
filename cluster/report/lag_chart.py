"""Calibration by policy lag: for each lag how sure the responses were, and how many were right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from cluster.report.drawing import WIDTH, Field, canvas, line, text, tip
from cluster.svg import Axis

_LEFT, _RIGHT, _TOP, _ROW, _BELOW = 80.0, 122.0, 26.0, 26.0, 40.0


def lag_chart(rows: Sequence[tuple[str, Mapping[str, float]]]) -> Element:
    """A line for each row, as `CalibrationByLag.rows` has them: share right (filled), mean confidence (hollow), n."""
    height = _ROW * len(rows)
    svg = canvas(_TOP + height + _BELOW)
    field = Field(svg, Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT), Axis(0.0, 1.0, _TOP + height, _TOP))
    field.grid((0.0, 0.25, 0.5, 0.75, 1.0), ())
    text(svg, WIDTH - 4, _TOP - 10, "n", "tick end")
    text(svg, WIDTH - 46, _TOP - 10, "ECE", "tick end")
    for number, (name, found) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        across = 1 - (number + 0.5) / len(rows)
        text(svg, _LEFT - 8, y + 4, name, "tick end")
        line(svg, field.across.at(found["accuracy"]), y, field.across.at(found["confidence"]), y, "interval")
        tip(field.dot(found["accuracy"], across, "main", 4.5), f"share right {found['accuracy']:.3f}")
        tip(field.dot(found["confidence"], across, "main hollow", 4.5), f"mean confidence {found['confidence']:.3f}")
        text(svg, WIDTH - 46, y + 4, f"{100 * found['ece']:.1f} ±{100 * found['floor']:.1f}", "tick end")
        text(svg, WIDTH - 4, y + 4, f"{found['n']:.0f}", "tick end")
    text(svg, (_LEFT + WIDTH - _RIGHT) / 2, _TOP + height + 32, "● share right   ○ mean confidence", "axis middle")
    return svg
