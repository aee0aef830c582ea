"""A trial as Ray Tune runs it: an actor that is the driver of one stage 3.

The job runs on the actor's event loop, and its workers, ranks and scorers are Ray actors within the trial's placement
group: Tune reserves the whole group before a trial begins, so that no two trials wait for each other's half. Each call
of Tune's returns when the log has one more line. What Tune does to end an actor, a kill after 10 s, leaves no time for
a checkpoint: a trial that is to end, without hope or with the whole tuning, finds that written in a file, tells its job
to stop as any job is told, and ends by itself.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any

from ray import tune

from cluster.actor_names import names_begin_with
from cluster.digests import is_finished
from cluster.pipeline import reinforce_and_evaluate
from cluster.quiet import quiet
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from cluster.trial_progress import Line, progress, read_lines
from cluster.trials import bundles, given_up, stop_request
from configs.load import load_recipe

_SECONDS_BETWEEN_LOOKS = 0.5
_NEXT_TO_NOTHING = {"CPU": 0.01}  # Ray reserves no group of nothing


class TrialActor(tune.Trainable):
    """A trial; its config names the file of its `recipe`.

    One that has ended already starts nothing and tells what its log has, so that others are held against it. So does
    one that was interrupted, before it goes on.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """What all the actors that it starts ask for."""
        recipe = load_recipe(config["recipe"])
        if is_finished(recipe, 3) or given_up(recipe):
            return tune.PlacementGroupFactory([_NEXT_TO_NOTHING])
        return tune.PlacementGroupFactory([{}, *bundles(recipe)])

    def __repr__(self) -> str:
        return self._name  # before its lines in the job's log

    def setup(self, config: dict[str, Any]) -> None:
        """Read the recipe."""
        quiet()
        self._recipe = load_recipe(config["recipe"])
        run = RunFolder.of(self._recipe)
        self._name = run.path.name
        self._log = run.stage(3).path / "log.jsonl"
        self._stop_request = stop_request(run.path.parent)
        self._steps = 0  # told
        self._runner = asyncio.Runner()
        self._job: asyncio.Task[None] | None = None
        self._interrupted = False
        names_begin_with(f"{self._name}.")

    def step(self) -> dict[str, Any]:
        """Wait for the log's next line; the last one is told when all is done. Raises what the job raises."""
        return self._runner.run(self._next())

    def cleanup(self) -> None:
        """Give up the job, its actors ended in order, where Tune ends the trial by itself."""
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
                signal.raise_signal(signal.SIGTERM)

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
