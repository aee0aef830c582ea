"""The reliability diagram: how often answers of about the same confidence are right, as numbers and as a bitmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rewards.bins import equal_width_bins

_SIDE, _LEFT, _TOP, _BELOW = 400, 60, 40, 60  # of the field that points are in, and around it; pixels
_RADIUS = 5
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_INK, _FAINT, _ACCENT = "#222222", "#dddddd", "#c0392b"


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence is in [low, high), or in [low, 1] of the last bin; one at least."""

    low: float
    high: float
    n: int
    confidence: float  # mean, as stated
    right: float  # share of them


def reliability_bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int) -> list[Bin]:
    """The bins in use, of equal width: those that the ECE is over. [n] confidences, [n] outcomes."""
    bin_of = equal_width_bins(confidence, bins)
    found = []
    for k in np.unique(bin_of).tolist():
        stated, right = confidence[bin_of == k], correct[bin_of == k]
        found.append(Bin(k / bins, (k + 1) / bins, len(stated), float(stated.mean()), float(right.mean())))
    return found


def reliability_bitmap(title: str, found: Sequence[Bin]) -> Image.Image:
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
    draw.line([_at(one.confidence, one.right) for one in found], _ACCENT)
    for one in found:
        x, y = _at(one.confidence, one.right)
        draw.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), _ACCENT)
        draw.text((x + 8, y + 8), str(one.n), _ACCENT, anchor="la")
    draw.text((_LEFT, 6), title, _INK)
    draw.text((_LEFT + _SIDE / 2, _TOP + _SIDE + 34), "stated confidence", _INK, anchor="ma")
    draw.text((_LEFT, 22), "share that is right, and number of answers", _INK)
    return picture


def _at(confidence: float, right: float) -> tuple[float, float]:
    return _LEFT + confidence * _SIDE, _TOP + (1 - right) * _SIDE
