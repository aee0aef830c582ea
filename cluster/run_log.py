"""One `log(metrics, step)` behind which the console, a JSONL file, Weights & Biases and Ray's gauges stand."""

from __future__ import annotations

import json
import logging
import math
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

import ray

from cluster.gauges import Gauges, Phase
from cluster.stopped import Stopped
from cluster.wandb_run import wandb_run
from configs.schema import Recipe
from rollout.whole_appends import WholeAppends

logger = logging.getLogger(__name__)

Metrics = Mapping[str, float | None]

_LINES_PER_HEADER = 20


@dataclass(frozen=True, slots=True)
class Column:
    """A metric's place in the console line."""

    metric: str
    header: str
    decimals: int
    factor: float = 1.0

    @property
    def width(self) -> int:
        """Characters, with room for a sign and four digits before the point."""
        return max(len(self.header), self.decimals + 6 if self.decimals else 6)

    def show(self, metrics: Metrics) -> str:
        """The value, right-aligned; a dash where it is undefined."""
        value = metrics.get(self.metric)
        text = "-" if value is None else f"{value * self.factor:.{self.decimals}f}"
        return text.rjust(self.width)


class RunLog:
    """Writes a line a step; files are appended to, so a resumed run goes on in them."""

    def __init__(
        self,
        folder: Path,
        stage: str,
        columns: Sequence[Column],
        recipe: Recipe,
        warnings: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """What `warnings` gives, asked each time, stands above the columns' names wherever those are written."""
        self._file = WholeAppends(folder / "log.jsonl")
        self._unwritten = b""  # lines that the disk did not take
        self._columns = columns
        self._warnings = warnings
        self._lines = 0
        self._stage = stage
        self._wandb = wandb_run(folder, stage, recipe)
        if self._wandb is not None:
            self._wandb.save_source(recipe)
        self._gauges = Gauges(recipe.name, stage) if ray.is_initialized() else None

    def log(self, metrics: Metrics, step: int) -> None:
        """Steps are counted from 1. Raises ValueError for a metric that is not finite."""
        if wrong := [name for name, value in metrics.items() if value is not None and not math.isfinite(value)]:
            raise ValueError(f"{self._stage}, step {step}: {', '.join(wrong)} not finite: training has diverged")
        if self._lines % _LINES_PER_HEADER == 0:
            print("".join(f"{warning}\n" for warning in self._warnings()), end="")
            print(
                "  ".join([f"{self._stage:>8}", *(c.header.rjust(c.width) for c in self._columns)]),
                flush=True,
            )
        print("  ".join([f"{step:>8}", *(c.show(metrics) for c in self._columns)]), flush=True)
        self._lines += 1
        self._write(json.dumps({"step": step, **metrics}) + "\n")
        if self._wandb is not None:
            self._wandb.log({name: value for name, value in metrics.items() if value is not None}, step=step)
        if self._gauges is not None:
            self._gauges.line({"step": float(step), **metrics})

    def _write(self, line: str) -> None:
        """Append a line; where the disk does not take it, it comes with the next one."""
        self._unwritten += line.encode()
        try:
            self._file.append(self._unwritten)
        except OSError as error:
            lines = self._unwritten.count(b"\n")
            logger.error("%s: %d lines of the log wait for the disk to take them: %s", self._stage, lines, error)
        else:
            self._unwritten = b""

    def phase(self, phase: Phase) -> None:
        """What the job does from now on; only Ray's gauges tell it."""
        if self._gauges is not None:
            self._gauges.phase(phase)

    def back_to(self, step: int) -> None:
        """Forget the file's lines of later steps, which are taken again, and what follows a line that was cut off."""
        file = self._file.file
        file.seek(0)
        kept = takewhile(lambda line: _step_of(line) <= step, file.readlines())
        file.truncate(sum(map(len, kept)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Cancelled is what a job is that is told to stop before its first step.
        failed = error is not None and not isinstance(error, Stopped | CancelledError)
        self._file.close()
        if self._gauges is not None:
            self._gauges.close(failed=failed)
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))


def _step_of(line: bytes) -> float:
    """The step of a line of the file; of one that is not whole it is later than any."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except ValueError:
        return math.inf
