"""Metrics with bootstrap intervals as aligned plain text: of one run, and of two held against each other."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.metrics_table import aligned
from rewards.bootstrap import Difference, Interval, compare, intervals
from rewards.outcomes import Outcomes

METRIC_NAMES = {
    "accuracy": "accuracy",
    "majority_accuracy": "maj. acc.",
    "mean_confidence": "mean c",
    "ece": "ECE",
    "brier": "Brier",
    "excess_brier": "excess",
    "auroc": "AUROC",
    "majority_auroc": "maj. AUROC",
    "aurc": "AURC",
}


def intervals_table(outcomes: Outcomes, resamples: int, seed: int, bins: int) -> str:
    """A row for each metric of all tasks together; ECE in percent points. Raises as `intervals` does."""
    rows = interval_rows(intervals(outcomes, resamples, seed, bins))
    legend = (
        f"All tasks, {resamples} resamples of the prompts. A resample has more noise than the sample: "
        "the ECE's interval lies high."
    )
    return "\n".join([aligned(["value", "95% interval"], rows), legend])


def interval_rows(found: Mapping[str, Interval]) -> list[tuple[str, str, str]]:
    """Name, value and interval of each metric."""
    return [(METRIC_NAMES[name], shown_metric(name, one.value), shown_range(name, one)) for name, one in found.items()]


def comparison_table(first: Outcomes, second: Outcomes, resamples: int, seed: int, bins: int) -> str:
    """A row for each metric of two runs, A and B, over the same prompts. Raises as `compare` does."""
    found = compare(first, second, resamples, seed, bins)
    rows = [
        (
            METRIC_NAMES[name],
            shown_metric(name, one.first),
            shown_metric(name, one.second),
            shown_metric(name, one.value, "+"),
            shown_range(name, one, "+"),
            f"{one.opposed:.3f}",
        )
        for name, one in found.items()
    ]
    legend = (
        f"All tasks, {resamples} resamples of the prompts, the same for A and B. "
        "Opposed: share of them with no difference, or one of the other sign."
    )
    return "\n".join([aligned(["A", "B", "B - A", "95% interval", "opposed"], rows), legend])


def shown_metric(name: str, value: float, sign: str = "") -> str:
    """A metric's value as tables have it."""
    return f"{100 * value:{sign}.1f}" if name == "ece" else f"{value:{sign}.3f}"


def shown_range(name: str, found: Interval | Difference, sign: str = "") -> str:
    """Where 95% of the resamples have a metric, or the difference of two, as tables have it."""
    return f"{shown_metric(name, found.low, sign)} to {shown_metric(name, found.high, sign)}"
