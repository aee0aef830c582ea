"""The reliability diagram as a bitmap, for those who take no SVG."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from rewards.reliability import ReliabilityBin

_SIDE, _LEFT, _TOP, _BELOW = 400, 60, 40, 60  # of the field that points are in, and around it; pixels
_RADIUS = 5
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_INK, _FAINT, _ACCENT = "#222222", "#dddddd", "#c0392b"


def reliability_bitmap(title: str, found: Sequence[ReliabilityBin]) -> Image.Image:
    """A point for each bin, with its number of answers; calibrated ones lie on the diagonal."""
    picture = Image.new("RGB", (_LEFT + _SIDE + 30, _TOP + _SIDE + _BELOW), "white")
    draw = ImageDraw.Draw(picture)
    for tick in _TICKS:
        draw.line((*_at(tick, 0), *_at(tick, 1)), _FAINT)
        draw.line((*_at(0, tick), *_at(1, tick)), _FAINT)
        x, y = _at(tick, tick)
        draw.text((x, _TOP + _SIDE + 8), f"{tick:g}", _INK, anchor="ma")
        draw.text((_LEFT - 8, y), f"{tick:g}", _INK, anchor="rm")
    draw.line((*_at(0, 0), *_at(1, 1)), _INK)
    draw.line([_at(one.confidence, one.accuracy) for one in found], _ACCENT)
    for one in found:
        x, y = _at(one.confidence, one.accuracy)
        draw.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), _ACCENT)
        draw.text((x + 8, y + 8), str(one.n), _ACCENT, anchor="la")
    draw.text((_LEFT, 6), title, _INK)
    draw.text((_LEFT + _SIDE / 2, _TOP + _SIDE + 34), "stated confidence", _INK, anchor="ma")
    draw.text((_LEFT, 22), "share that is right, and number of answers", _INK)
    return picture


def _at(confidence: float, right: float) -> tuple[float, float]:
    return _LEFT + confidence * _SIDE, _TOP + (1 - right) * _SIDE
