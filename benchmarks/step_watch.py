"""Stage 3's log as a benchmark keeps it: silent, and the run ends when it has seen enough steps."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import silence
from cluster.controller import Controller
from cluster.run_log import Metrics, RunLog
from cluster.step_metrics import COLUMNS
from configs.schema import Recipe


class StepWatch(RunLog):
    """The log of a run whose step number `last` is the last of interest. A subclass says what is noted of each."""

    def __init__(self, folder: Path, recipe: Recipe, last: int) -> None:
        super().__init__(folder, "stage3", COLUMNS, recipe)
        self.controller: Controller | None = None
        self._last = last

    def seen(self, metrics: Metrics, step: int) -> None:
        """Note a step's line."""
        raise NotImplementedError

    def log(self, metrics: Metrics, step: int) -> None:
        """As the production log, but for the console."""
        with silence():
            super().log(metrics, step)
        if step <= self._last:  # one more is under way when the run is told to end
            self.seen(metrics, step)
        if step == self._last:
            assert self.controller is not None
            self.controller.stop()
