"""The reward service: groups are dealt to reward workers, and scored by another one where a worker dies or hangs.

A group waits here for a worker with room, so that its time limit counts what it takes to score it and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from cluster.records import GroupRecord
from cluster.reward_actor import RewardActor
from cluster.waiting import WaitedTooLong, together, within
from configs.schema import Recipe
from rollout.engine import EngineError
from rollout.worker import Visit

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # times a group is given to a worker, and a worker is started


class NoRewardWorkers(RuntimeError):
    """A reward worker cannot be started."""


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    starts: int = 0
    actor: Any = None  # a Ray actor handle
    groups: int = 0  # being scored
    live: bool = False


class RewardService:
    """Reward workers under supervision."""

    def __init__(self, recipe: Recipe, model_dir: str, rollouts: Path) -> None:
        rollouts.mkdir(parents=True, exist_ok=True)
        self._recipe = recipe
        self._model_dir = model_dir
        self._rollouts = rollouts
        self._workers = [_Worker(f"reward-{index}") for index in range(recipe.reward_service.workers)]
        self._at_once = groups_at_once(recipe)
        self._changed = asyncio.Condition()
        self._replacements: set[asyncio.Task[None]] = set()
        self._fatal: BaseException | None = None
        self._failures: Counter[str] = Counter()
        self.restarts = 0

    async def start(self) -> None:
        """Start all workers, at once. Raises what a worker's matcher says of itself, or NoRewardWorkers."""
        await together(*map(self._bring_up, self._workers))

    @property
    def counts(self) -> Mapping[str, float]:
        """Since the start: workers replaced, and responses left without a score by the error that was the cause."""
        failures = {f"unscored/{cause}": float(number) for cause, number in self._failures.items()}
        return {"reward_worker_restarts": float(self.restarts), **failures}

    async def score(self, encoded: ray.ObjectRef, visit: Visit) -> tuple[GroupRecord, ray.ObjectRef]:
        """The record of the scored group and a reference to it; EngineError where no worker survives it."""
        for _ in range(ATTEMPTS):
            worker = await self._least_busy()
            actor = worker.actor
            try:
                record, group = actor.score.options(num_returns=2).remote(encoded, visit.prompt)
                made = await self._within(record, f"{worker.name} to score group {visit.group_id}")
            except (RayActorError, WaitedTooLong) as error:
                self._lost(worker, actor, error)
            else:
                self._failures.update(s.failure.partition(":")[0] for s in made.samples if s.failure is not None)
                return made, group
            finally:
                await self._leave(worker)
        raise EngineError(f"group {visit.group_id}: {ATTEMPTS} reward workers died or hung over it")

    async def close(self) -> None:
        """End the workers' processes, their files closed."""
        for task in self._replacements:
            task.cancel()
        await asyncio.gather(*self._replacements, return_exceptions=True)
        await asyncio.gather(*map(self._end, self._workers))

    async def _least_busy(self) -> _Worker:
        """A worker with room, in which a place is taken; to be given back by `_leave`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._fatal or self._with_room())
            if self._fatal is not None:
                raise NoRewardWorkers("a reward worker could not be replaced") from self._fatal
            worker = min(self._with_room(), key=lambda worker: worker.groups)
            worker.groups += 1
            return worker

    def _with_room(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.live and worker.groups < self._at_once]

    async def _leave(self, worker: _Worker) -> None:
        worker.groups -= 1
        async with self._changed:
            self._changed.notify_all()

    def _lost(self, worker: _Worker, actor: Any, error: BaseException) -> None:
        """Replace a worker, once however many of its groups report the death of this actor of its."""
        if not worker.live or worker.actor is not actor:
            return
        worker.live = False
        self.restarts += 1
        logger.warning("%s is lost and will be replaced; its groups are given to others: %s", worker.name, error)
        ray.kill(worker.actor)
        task = asyncio.create_task(self._replace(worker))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _replace(self, worker: _Worker) -> None:
        try:
            await self._bring_up(worker)
        except Exception as error:
            logger.exception("%s cannot be replaced", worker.name)
            async with self._changed:
                self._fatal = error  # whoever waits for a worker raises it
                self._changed.notify_all()

    async def _bring_up(self, worker: _Worker) -> None:
        cause: BaseException | None = None
        for _ in range(ATTEMPTS):
            worker.actor = self._new(worker)
            try:
                seconds = self._recipe.rl.seconds_per_wait
                await within(worker.actor.start.remote(), seconds, f"{worker.name} to start")
            except (RayActorError, WaitedTooLong) as error:
                logger.warning("%s did not start: %s", worker.name, error)
                ray.kill(worker.actor)
                cause = error
            else:
                async with self._changed:
                    worker.live = True
                    self._changed.notify_all()
                return
        raise NoRewardWorkers(f"{worker.name} could not be started in {ATTEMPTS} attempts") from cause

    def _new(self, worker: _Worker) -> Any:
        # Each start writes a file of its own: a worker that was given up may still be at its last group.
        name = worker.name if worker.starts == 0 else f"{worker.name}.{worker.starts}"
        worker.starts += 1
        options = RewardActor.options(
            num_cpus=self._recipe.reward_service.cpus_per_worker,
            max_concurrency=self._at_once if self._recipe.rewards.judge else 1,
        )
        return options.remote(self._model_dir, self._recipe, str(self._rollouts / f"{name}.rollouts"))

    async def _end(self, worker: _Worker) -> None:
        if worker.live:
            try:
                await self._within(worker.actor.close.remote(), f"{worker.name} to close")
            except (RayActorError, WaitedTooLong) as error:
                logger.warning("%s did not close by itself: %s", worker.name, error)
        if worker.actor is not None:
            ray.kill(worker.actor)

    async def _within(self, reference: ray.ObjectRef, what: str) -> Any:
        seconds = self._recipe.reward_service.seconds_per_group
        return await within(reference, seconds, what, "reward_service.seconds_per_group")


def groups_at_once(recipe: Recipe) -> int:
    """Groups a reward worker has at a time: of those that wait for a judge as many as its requests are enough for."""
    if recipe.rewards.judge is not None:
        return max(1, recipe.rewards.judge.requests_at_once // recipe.rl.samples_per_prompt)
    return 1 if recipe.rewards.own_scorer else 2  # with the built-in ones the next is on its way while one is scored
