"""Actors of one kind under supervision: who has most room takes the next piece of work, a lost one is replaced.

`RolloutPool` and `RewardService` say what an actor is and what it is asked; who does it, and what
happens when one dies, is here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import ObjectLostError, RayActorError

from cluster.waiting import WaitedTooLong, together, within
from rollout.engine import EngineDied, EngineError

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # times work is given to a worker, and a worker is started, before the fault is taken as the input's

_LOST = (RayActorError, EngineDied, WaitedTooLong)

Result = TypeVar("Result")


class NoWorkers(RuntimeError):
    """A worker cannot be started."""


@dataclass(slots=True, eq=False)
class Worker:
    """A place for an actor, and the actor that holds it now."""

    index: int
    name: str
    actor: Any = None  # a Ray actor handle
    starts: int = 0
    busy: int = 0  # pieces of work under way
    at_once: float = math.inf  # of them, at most
    live: bool = False


class Supervisor:
    """Workers by name. `make` starts a worker's actor; `ready` waits until it can work, raising why it cannot."""

    def __init__(
        self,
        names: Sequence[str],
        make: Callable[[Worker], Any],
        ready: Callable[[Worker], Awaitable[None]],
        at_once: float = math.inf,
        kill: Callable[[Any], None] | None = None,
    ) -> None:
        """`at_once` pieces of work are given to a worker; more wait here, where their time does not count.

        `kill` ends an actor at once; its process is ended where nothing else is given.
        """
        self.workers = [Worker(index, name, at_once=at_once) for index, name in enumerate(names)]
        self.restarts = 0
        self._make = make
        self._ready = ready
        self._kill = kill or ray.kill
        self._waiting: deque[asyncio.Future[Worker]] = deque()  # for a place at a worker, in the order they asked
        self._replacements: set[asyncio.Task[None]] = set()
        self._fatal: BaseException | None = None

    async def start(self) -> None:
        """Start all workers, at once. Raises NoWorkers, or what `ready` said that another attempt would not mend."""
        await together(*map(self._bring_up, self.workers))

    @property
    def live(self) -> list[Worker]:
        """Those that are not being replaced."""
        return [worker for worker in self.workers if worker.live]

    def load(self, service: str) -> dict[str, float]:
        """What the log tells of the work: what waits for a place, and who has how much and was started how often."""
        return {
            f"queue/{service}": float(sum(not turn.done() for turn in self._waiting)),
            **{f"worker/{worker.name}/groups": float(worker.busy) for worker in self.workers},
            **{f"worker/{worker.name}/starts": float(worker.starts) for worker in self.workers},
        }

    async def do(self, work: Callable[[Worker], Awaitable[Result]], what: str) -> Result:
        """What the worker with most room made of `work`; another one does it where that is lost or fails.

        Raises EngineError where every attempt failed, NoWorkers where a worker could not be replaced, and at
        once what else the work raises.
        """
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._with_room()
            actor = worker.actor
            try:
                return await work(worker)
            except _LOST as error:
                self.lost(worker, actor, error)
            except EngineError as error:
                logger.warning("%s, %s, attempt %d: %s", worker.name, what, attempt, error)
            finally:
                self._give_back(worker)
        raise EngineError(f"{what}: {ATTEMPTS} attempts failed, the workers' logs say why")

    async def each(self, work: Callable[[Worker], Awaitable[None]]) -> None:
        """Let every live worker do `work`; one that is lost over it is replaced."""
        await asyncio.gather(*(self.let(worker, work) for worker in self.live))

    async def let(self, worker: Worker, work: Callable[[Worker], Awaitable[None]]) -> None:
        """Let this live worker do `work`, beside what it is given; where it is lost over it, it is replaced."""
        actor = worker.actor
        try:
            await work(worker)
        except _LOST as error:
            self.lost(worker, actor, error)

    def limit(self, worker: Worker, at_once: float) -> None:
        """Give a worker no more than so many pieces of work at once from now on; what it has it keeps."""
        worker.at_once = at_once
        self._serve()

    def lost(self, worker: Worker, actor: Any, error: BaseException) -> None:
        """Replace a worker, once however many report the death of this actor of its."""
        if not worker.live or worker.actor is not actor:
            return
        worker.live = False
        self.restarts += 1
        logger.warning("%s is lost and will be replaced; its work is given to others: %s", worker.name, error)
        self._kill(actor)
        task = asyncio.create_task(self._replace(worker))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def close(self, seconds: float, setting: str) -> None:
        """End the actors' processes, after each live one's own `close` within `seconds`, which `setting` gave."""
        for task in self._replacements:
            task.cancel()
        await asyncio.gather(*self._replacements, return_exceptions=True)
        await asyncio.gather(*(self._end(worker, seconds, setting) for worker in self.workers))

    async def _end(self, worker: Worker, seconds: float, setting: str) -> None:
        if worker.live:
            try:
                await within(worker.actor.close.remote(), seconds, f"{worker.name} to close", setting)
            except (RayActorError, WaitedTooLong) as error:
                logger.warning("%s did not close by itself: %s", worker.name, error)
        if worker.actor is not None:
            self._kill(worker.actor)

    async def _with_room(self) -> Worker:
        """A worker with room, in which a place is taken; to be given back."""
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # cancelled with the place in its hand
                self._give_back(turn.result())
            raise

    def _give_back(self, worker: Worker) -> None:
        worker.busy -= 1
        self._serve()

    def _serve(self) -> None:
        """Hand the places there are to those who have waited longest. No one else is woken: hundreds may wait."""
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            if self._fatal is not None:
                failure = NoWorkers("a worker could not be replaced")
                failure.__cause__ = self._fatal
                self._waiting.popleft().set_exception(failure)
                continue
            with_room = [worker for worker in self.live if worker.busy < worker.at_once]
            if not with_room:
                return
            worker = min(with_room, key=lambda worker: (worker.busy - worker.at_once, worker.busy))
            worker.busy += 1
            self._waiting.popleft().set_result(worker)

    async def _replace(self, worker: Worker) -> None:
        lost = time.monotonic()
        try:
            await self._bring_up(worker)
            logger.warning("%s works again, %.1f s after it was lost", worker.name, time.monotonic() - lost)
        except Exception as error:
            logger.exception("%s cannot be replaced", worker.name)
            self._fatal = error  # whoever waits for a worker raises it
            self._serve()

    async def _bring_up(self, worker: Worker) -> None:
        cause: BaseException | None = None
        for _ in range(ATTEMPTS):
            worker.actor = self._make(worker)
            worker.starts += 1
            try:
                await self._ready(worker)
            except (*_LOST, EngineError, ObjectLostError) as error:  # lost: weights whose publisher has ended
                logger.warning("%s did not start: %s", worker.name, error)
                self._kill(worker.actor)
                cause = error
            else:
                worker.live = True  # with no await since `ready` ended: what it saw last still holds
                self._serve()
                return
        raise NoWorkers(f"{worker.name} could not be started in {ATTEMPTS} attempts") from cause
