"""A job's numbers as gauges of Ray's, which every node's metrics port shows to Prometheus."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ray.util.metrics import Gauge

from cluster.gauge_names import gauge_of

# Some versions of Ray forget a gauge once it is exported, which is every second at most.
SECONDS_BETWEEN_SETTINGS = 1.0


class Phase(StrEnum):
    """What a job does."""

    WAITING = "waiting"  # for a batch
    TRAINING = "training"
    EVALUATING = "evaluating"
    PUBLISHING = "publishing"  # new weights
    SAVING = "saving"  # a checkpoint, or the model
    FAILED = "failed"  # nothing more: it ended by an error


@dataclass(frozen=True, slots=True)
class _Series:
    gauge: Gauge
    tags: dict[str, str]


class Gauges:
    """The gauges of one stage of a run, set again and again by a thread. Ray must be running."""

    def __init__(self, run: str, stage: str) -> None:
        self._tags = {"run": run, "stage": stage}
        self._series: dict[str, _Series | None] = {}  # by metric; None: not exported
        self._values: dict[str, float] = {}  # by metric; replaced and never changed, since the thread reads it
        self._logged: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._set_until_closed, name="gauges", daemon=True)
        self._thread.start()

    def line(self, metrics: Mapping[str, float | None]) -> None:
        """Show a line of the log. What the line before had and this one has not is undefined from now on."""
        self._show({**dict.fromkeys(self._logged), **metrics})
        self._logged = frozenset(metrics)

    def phase(self, phase: Phase) -> None:
        """Show what the job does."""
        self._show({f"phase/{one}": float(one is phase) for one in Phase})

    def close(self, *, failed: bool = False) -> None:
        """All is undefined from now on: Ray cannot take a gauge back, and the process may have other stages to run.

        But for one: that the stage failed, where it did.
        """
        self._closed.set()
        self._thread.join()
        self._show({**dict.fromkeys(self._values), **({f"phase/{Phase.FAILED}": 1.0} if failed else {})})
        self._set()

    def _show(self, metrics: Mapping[str, float | None]) -> None:
        for metric in metrics.keys() - self._series.keys():
            self._series[metric] = self._made(metric)
        given = {metric: math.nan if value is None else value for metric, value in metrics.items()}
        self._values = {**self._values, **given}

    def _made(self, metric: str) -> _Series | None:
        named = gauge_of(metric)
        if named is None:
            return None
        tags = {**self._tags, **named.tags}
        return _Series(Gauge(named.gauge, named.description, tuple(tags)), tags)

    def _set(self) -> None:
        for metric, value in self._values.items():
            if series := self._series[metric]:
                series.gauge.set(value, series.tags)

    def _set_until_closed(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_SETTINGS):
            self._set()
