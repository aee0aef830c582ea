"""One `log(metrics, step)` behind which the console, a JSONL file, Weights & Biases and Ray's gauges stand."""

from __future__ import annotations

import json
import math
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import ray

from cluster.gauges import Gauges, Phase
from cluster.stopped import Stopped
from cluster.wandb_service import keep_service
from configs.schema import Recipe, Wandb, WandbMode

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
        self, folder: Path, stage: str, columns: Sequence[Column], recipe: Recipe, warnings: Sequence[str] = ()
    ) -> None:
        """`warnings` stand above the columns' names wherever those are written."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "log.jsonl").open("a+", encoding="utf-8", newline="\n")
        self._columns = columns
        self._warnings = warnings
        self._lines = 0
        self._stage = stage
        self._wandb = _wandb_run(recipe.wandb, folder, stage, recipe)
        self._gauges = Gauges(recipe.name, stage) if ray.is_initialized() else None

    def log(self, metrics: Metrics, step: int) -> None:
        """Steps are counted from 1. Raises ValueError for a metric that is not finite."""
        if wrong := [name for name, value in metrics.items() if value is not None and not math.isfinite(value)]:
            raise ValueError(f"{self._stage}, step {step}: {', '.join(wrong)} not finite: training has diverged")
        if self._lines % _LINES_PER_HEADER == 0:
            print("".join(f"{warning}\n" for warning in self._warnings), end="")
            print(
                "  ".join([f"{self._stage:>8}", *(c.header.rjust(c.width) for c in self._columns)]),
                flush=True,
            )
        print("  ".join([f"{step:>8}", *(c.show(metrics) for c in self._columns)]), flush=True)
        self._lines += 1
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log({name: value for name, value in metrics.items() if value is not None}, step=step)
        if self._gauges is not None:
            self._gauges.line({"step": float(step), **metrics})

    def phase(self, phase: Phase) -> None:
        """What the job does from now on; only Ray's gauges tell it."""
        if self._gauges is not None:
            self._gauges.phase(phase)

    def back_to(self, step: int) -> None:
        """Forget the file's lines of later steps, which are taken again, and what follows a line that was cut off."""
        self._file.seek(0)
        kept = takewhile(lambda line: _step_of(line) <= step, self._file.readlines())
        self._file.truncate(sum(len(line.encode()) for line in kept))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._gauges is not None:
            self._gauges.close()
        if self._wandb is not None:
            # Cancelled is what a job is that is told to stop before its first step.
            self._wandb.finish(exit_code=0 if error is None or isinstance(error, Stopped | CancelledError) else 1)


def _step_of(line: str) -> float:
    """The step of a line of the file; of one that is not whole it is later than any."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def _wandb_run(settings: Wandb, folder: Path, stage: str, recipe: Recipe):  # type: ignore[no-untyped-def]
    if settings.mode is WandbMode.DISABLED:
        return None
    import wandb  # here: it takes a second to import, and most runs do without

    keep_service()
    # A resumed job goes on in the same run; which one that is lies beside the log, and goes where that goes.
    kept = folder / "wandb_run_id"
    if not kept.exists() or not kept.read_text(encoding="utf-8"):
        kept.write_text(uuid4().hex, encoding="utf-8")
    return wandb.init(
        id=kept.read_text(encoding="utf-8"),
        resume="allow",
        project=settings.project,
        name=f"{recipe.name}-{stage}",
        dir=str(folder),
        mode=settings.mode.value,  # type: ignore[arg-type]  # the same words
        config=recipe.model_dump(mode="json"),
    )
