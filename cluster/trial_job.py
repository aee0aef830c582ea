"""The stage 3 of a trial, told step by step to who calls; it stops by itself when its folder says so."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

from cluster.digests import is_finished
from cluster.pipeline import reinforce_and_evaluate
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from cluster.trial_progress import Line, progress, read_lines
from cluster.trials import given_up, stop_request
from configs.schema import Recipe

_SECONDS_BETWEEN_LOOKS = 0.5


class TrialJob:
    """A job on an event loop of its own, which runs while it is called. To be made in the main thread: it gets signals.

    One that has ended already starts nothing and tells what its log has, so that others are held against it. So does
    one that was interrupted, before it goes on.
    """

    def __init__(self, recipe: Recipe) -> None:
        run = RunFolder.of(recipe)
        self._recipe = recipe
        self._log = run.stage(3).path / "log.jsonl"
        self._stop_request = stop_request(run.path.parent)
        self._steps = 0  # told
        self._runner = asyncio.Runner()
        self._job: asyncio.Task[None] | None = None
        self._interrupted = False

    def next(self) -> dict[str, Any]:
        """Wait for the log's next line; the last one is told when all is done. Raises what the job raises."""
        return self._runner.run(self._next())

    def close(self) -> None:
        """Give up the job where it still runs, its actors ended in order."""
        self._runner.close()

    async def _next(self) -> dict[str, Any]:
        while True:
            lines = read_lines(self._log)
            following = self._steps + 1
            if following <= len(lines) and following < self._recipe.rl.steps:
                return self._told(lines, following, done=False)
            if self._over():
                return self._told(lines, len(lines), done=True)
            if self._job is None:
                self._job = asyncio.create_task(reinforce_and_evaluate(self._recipe))
            await asyncio.wait({self._job}, timeout=_SECONDS_BETWEEN_LOOKS)
            if not self._job.done() and not self._interrupted and self._asked_to_stop():
                self._interrupted = True
                signal.raise_signal(signal.SIGTERM)  # as any job is told

    def _told(self, lines: list[Line], steps: int, *, done: bool) -> dict[str, Any]:
        self._steps = steps
        return {**progress(lines[:steps]), "done": done}

    def _over(self) -> bool:
        if self._job is None:
            return is_finished(self._recipe, 3) or self._asked_to_stop()
        if self._job.done():
            with suppress(Stopped):
                self._job.result()
        return self._job.done()

    def _asked_to_stop(self) -> bool:
        return self._stop_request.exists() or given_up(self._recipe)
