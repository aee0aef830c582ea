"""The rollout workers as one: the least loaded takes the next visit, a dead one is replaced."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.exceptions import RayActorError

from cluster.rollout_actor import RolloutActor
from cluster.transport import WeightUpdate
from cluster.waiting import WaitedTooLong, together, within
from configs.schema import Engine
from rollout.chat import ImageLimits
from rollout.engine import EngineDied, EngineError, SamplingSettings
from rollout.worker import Visit

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # times a visit is given to a worker, and a worker is started, before the fault is taken as the input's


class NoWorkers(RuntimeError):
    """No rollout worker can be started."""


class WrongWeights(RuntimeError):
    """A worker read other weights than the learner sent."""


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    actor: Any  # a Ray actor handle
    visits: int = 0  # in flight
    live: bool = False


class RolloutPool:
    """Rollout workers under supervision."""

    def __init__(
        self, model_dir: str, settings: Engine, limits: ImageLimits, seed: int, seconds_per_wait: float
    ) -> None:
        self._model_dir = model_dir
        self._settings = settings
        self._limits = limits
        self._seed = seed
        self._seconds = seconds_per_wait
        self._workers: list[_Worker] = []
        self._latest: WeightUpdate | None = None
        self._changed = asyncio.Condition()
        self._replacements: set[asyncio.Task[None]] = set()
        self._fatal: BaseException | None = None
        self.restarts = 0

    @classmethod
    async def start(
        cls, model_dir: str, settings: Engine, limits: ImageLimits, seed: int, seconds_per_wait: float
    ) -> Self:
        """Start all workers, at once."""
        pool = cls(model_dir, settings, limits, seed, seconds_per_wait)
        pool._workers = [_Worker(f"rollout-{index}", None) for index in range(settings.workers)]
        try:
            await together(*map(pool._bring_up, pool._workers))
        except BaseException:
            await pool.close()
            raise
        return pool

    @property
    def size(self) -> int:
        """Number of workers, those being replaced included."""
        return len(self._workers)

    @property
    def in_flight(self) -> int:
        """Visits being generated."""
        return sum(worker.visits for worker in self._workers)

    async def generate(self, visit: Visit, sampling: SamplingSettings) -> ray.ObjectRef:
        """A reference to the encoded group of a visit; reissued to another worker where one fails.

        Raises EngineError where every attempt failed, ValueError for a prompt that cannot be answered.
        """
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._least_loaded()
            try:
                return await self._generate(worker, visit, sampling)
            except (RayActorError, EngineDied, WaitedTooLong) as error:
                self._lost(worker, error)
            except EngineError as error:
                logger.warning("%s, group %d, attempt %d: %s", worker.name, visit.group_id, attempt, error)
        raise EngineError(f"group {visit.group_id}: {ATTEMPTS} attempts failed, the workers' logs say why")

    async def load(self, update: WeightUpdate) -> None:
        """Give every live worker new weights and check what it holds; one that fails is replaced.

        Workers that are being replaced get the newest weights before their first visit.
        """
        self._latest = update
        await asyncio.gather(*(self._load(worker, update) for worker in self._workers if worker.live))

    async def close(self) -> None:
        """End the workers' processes."""
        for task in self._replacements:
            task.cancel()
        await asyncio.gather(*self._replacements, return_exceptions=True)
        await asyncio.gather(*map(self._end, self._workers))

    async def _end(self, worker: _Worker) -> None:
        if worker.live:
            try:
                await within(worker.actor.close.remote(), self._seconds, f"{worker.name} to close")
            except (RayActorError, WaitedTooLong) as error:
                logger.warning("%s did not close by itself: %s", worker.name, error)
        if worker.actor is not None:
            ray.kill(worker.actor)

    async def _generate(self, worker: _Worker, visit: Visit, sampling: SamplingSettings) -> ray.ObjectRef:
        worker.visits += 1
        try:
            # The first return says that the group is there; the group itself stays where it is.
            done, group = worker.actor.generate.options(num_returns=2).remote(visit, sampling)
            await within(done, self._seconds, f"{worker.name} to generate group {visit.group_id}")
            return group
        finally:
            worker.visits -= 1

    async def _load(self, worker: _Worker, update: WeightUpdate) -> None:
        try:
            await self._hand_over(worker, update)
        except (RayActorError, EngineDied, WaitedTooLong) as error:
            self._lost(worker, error)

    async def _hand_over(self, worker: _Worker, update: WeightUpdate) -> None:
        what = f"{worker.name} to load weight version {update.version}"
        held = await within(worker.actor.load.remote(update), self._seconds, what)
        if held != update.checksum:
            raise WrongWeights(
                f"{worker.name} holds weights with checksum {held} after version {update.version}, "
                f"the learner sent {update.checksum}"
            )

    async def _least_loaded(self) -> _Worker:
        async with self._changed:
            await self._changed.wait_for(lambda: self._fatal or any(worker.live for worker in self._workers))
        if self._fatal is not None:
            raise NoWorkers("a rollout worker could not be replaced") from self._fatal
        return min((worker for worker in self._workers if worker.live), key=lambda worker: worker.visits)

    def _lost(self, worker: _Worker, error: BaseException) -> None:
        """Replace a worker, once however many of its visits report its death."""
        if not worker.live:
            return
        worker.live = False
        self.restarts += 1
        logger.warning("%s is lost and will be replaced; its visits are given to others: %s", worker.name, error)
        ray.kill(worker.actor)
        task = asyncio.create_task(self._replace(worker))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _replace(self, worker: _Worker) -> None:
        try:
            await self._bring_up(worker)
        except (NoWorkers, WrongWeights) as error:
            async with self._changed:
                self._fatal = error  # whoever waits for a worker raises it
                self._changed.notify_all()

    async def _bring_up(self, worker: _Worker) -> None:
        cause: BaseException | None = None
        for _ in range(ATTEMPTS):
            try:
                await self._start(worker)
            except (RayActorError, EngineError, WaitedTooLong) as error:
                logger.warning("%s did not start: %s", worker.name, error)
                cause = error
            else:
                async with self._changed:
                    self._changed.notify_all()
                return
        raise NoWorkers(f"{worker.name} could not be started in {ATTEMPTS} attempts") from cause

    async def _start(self, worker: _Worker) -> None:
        worker.actor = RolloutActor.options(  # type: ignore[attr-defined]  # ray.remote's class
            num_cpus=self._settings.cpus_per_worker,
            num_gpus=self._settings.gpus_per_worker,
        ).remote(worker.name)
        seed = self._seed + 1 + self._workers.index(worker)  # else workers would sample the same
        started = worker.actor.start.remote(self._model_dir, self._settings, self._limits, seed)
        seconds = await within(started, self._seconds, f"{worker.name} to start")
        logger.info("%s started in %.1f s", worker.name, seconds)
        loaded = None
        while (update := self._latest) is not loaded and update is not None:  # a newer one may come meanwhile
            await self._hand_over(worker, update)
            loaded = update
        worker.live = True  # with no await since the last look: from here on `load` reaches it
