"""A run's training curves: what is drawn together, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from cluster.report.drawing import WIDTH, Field, apart, canvas, line, text
from cluster.report.mixes import MixChange
from cluster.run_folder import LogLine
from cluster.svg import Axis
from rewards.bootstrap import Interval

_LEFT, _RIGHT, _TOP, _HEIGHT, _BELOW = 46.0, 92.0, 18.0, 120.0, 36.0
_SMOOTHED_FROM = 30  # steps; fewer are drawn as they are
_WINDOW = 0.05  # share of the steps that a smoothed line is the mean over


@dataclass(frozen=True, slots=True)
class Panel:
    """Metrics of a log on one pair of axes."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]  # metric and label
    factor: float = 1.0


RL_PANELS = (
    Panel("Reward", "weighted sum of the parts", (("reward", "total"),)),
    Panel(
        "Parts of the reward",
        "raw, no weight applied",
        (("part/correctness", "correctness"), ("part/calibration", "calibration"), ("part/format", "format")),
    ),
    Panel("Accuracy and confidence", "mean over the batch", (("accuracy", "accuracy"), ("confidence", "confidence"))),
    Panel("Confidence by outcome", "mean", (("confidence_right", "when right"), ("confidence_wrong", "when wrong"))),
    Panel("ECE", "percent points, of a batch: mostly noise", (("ece", "ECE"),), 100),
    Panel(
        "Brier score",
        "= reliability - resolution + uncertainty",
        (("brier", "Brier"), ("reliability", "reliability"), ("resolution", "resolution")),
    ),
    Panel(
        "Form and sabotage",
        "% of responses",
        (("malformed", "malformed"), ("truncated", "truncated"), ("sabotage", "sabotage")),
        100,
    ),
    Panel("Distinct confidences", "values in use", (("distinct_confidences", "values"),)),
    Panel("Policy lag", "weight versions", (("lag_mean", "mean"), ("lag_max", "max"))),
    Panel(
        "Throughput", "tokens/s", (("rollout_tokens_per_second", "rollout"), ("learner_tokens_per_second", "learner"))
    ),
    Panel(
        "Waits",
        "seconds a step",
        (("learner_wait_seconds", "learner"), ("rollout_wait_seconds", "rollout"), ("stale_wait_seconds", "for stale")),
    ),
    Panel("KL", "nats a token", (("behaviour_kl", "engine"), ("reference_kl", "reference"))),
    Panel("Response length", "tokens", (("response_tokens", "mean"),)),
    Panel("Gradient norm", "before clipping", (("grad_norm", "norm"),)),
)
SFT_PANELS = (Panel("Loss", "nats a token", (("loss", "training"), ("evaluation_loss", "held out"))),)


def curves(panel: Panel, log: Sequence[LogLine], changes: Sequence[MixChange]) -> Element | None:
    """The panel's chart over the log's steps, changes of the mix marked; None where the log has none of its metrics."""
    series = {label: _points(log, metric, panel.factor) for metric, label in panel.series}
    series = {label: points for label, points in series.items() if points}
    if not series:
        return None
    svg = canvas(_TOP + _HEIGHT + _BELOW)
    svg.set("class", "curves")
    values = [value for points in series.values() for _, value in points]
    up = Axis.around([Interval(0.0, min(values), max(values))], _TOP + _HEIGHT, _TOP)
    if min(values) >= 0 > up.low:
        up = Axis(0.0, up.high, up.start, up.end)
    steps = [int(entry["step"] or 0) for entry in log]
    field = Field(svg, Axis(min(steps), max(max(steps), min(steps) + 1), _LEFT, WIDTH - _RIGHT), up)
    field.grid([tick for tick in field.across.ticks if tick == int(tick)], up.ticks)
    field.titles("step", "")
    for number, change in enumerate(changes, start=1):
        x = field.across.at(change.step)
        line(svg, x, up.start, x, up.end, "change")
        text(svg, x, _TOP - 5, f"{number}", "change middle")
    ends = [up.at(_smoothed(points)[-1][1]) + 4 for points in series.values()]
    places = apart(ends, _TOP + 8, _TOP + _HEIGHT)
    for number, ((label, points), place) in enumerate(zip(series.items(), places, strict=True), start=1):
        if len(points) >= _SMOOTHED_FROM:
            field.path(points, f"c{number} raw")
        drawn = field.path(_smoothed(points), f"c{number}")
        drawn.set("data-label", label)
        drawn.set("data-points", " ".join(f"{step:g}:{value:.4g}" for step, value in points))
        if len(points) == 1:
            field.dot(*points[0], f"c{number}")
        text(svg, WIDTH - _RIGHT + 8, place, label, f"label c{number}")
    return svg


def _points(log: Sequence[LogLine], metric: str, factor: float) -> list[tuple[float, float]]:
    return [(float(entry["step"] or 0), factor * value) for entry in log if (value := entry.get(metric)) is not None]


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A centred running mean, over fewer steps at the ends."""
    if len(points) < _SMOOTHED_FROM:
        return list(points)
    half = max(1, round(_WINDOW * len(points) / 2))
    values = np.array([value for _, value in points])
    return [(step, float(values[max(0, i - half) : i + half + 1].mean())) for i, (step, _) in enumerate(points)]
