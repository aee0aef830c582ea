"""Actors of one kind under supervision: who has most room takes the next piece of work, a lost one is replaced.

`RolloutPool` and `RewardService` say what an actor is and what it is asked; who does it, and what
happens when one dies, is here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import ray

from cluster.hiring import ATTEMPTS, LOST, Hiring
from cluster.room import Room
from cluster.turns import NoWorkers, Turns, Worker
from cluster.waiting import ACTOR_LOST, WaitedTooLong, within
from rollout.engine import EngineError

__all__ = ["ATTEMPTS", "NoWorkers", "Supervisor", "Worker"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Supervisor:
    """Workers by name. `make` starts a worker's actor; `ready` waits until it can work, raising why it cannot."""

    def __init__(
        self,
        names: Sequence[str],
        make: Callable[[Worker], Any],
        ready: Callable[[Worker], Awaitable[None]],
        at_once: float = math.inf,
        kill: Callable[[Any], None] | None = None,
        room: Callable[[Worker], Room] | None = None,
        seconds_for_room: float | None = None,
        needed: int | None = None,
    ) -> None:
        """`at_once` pieces of work are given to a worker; more wait here, where their time does not count.

        `kill` ends an actor at once; its process is ended where nothing else is given. `room` asks for a worker's, in
        which its actors are made, and is waited for so long while fewer than `needed` live; without it they are made
        without waiting for any. All are needed where no number is given.
        """
        self.workers = [Worker(index, name, at_once=at_once) for index, name in enumerate(names)]
        self.restarts = 0
        self._kill = kill or ray.kill
        self._turns = Turns(self.workers)
        number = len(self.workers) if needed is None else needed
        self._hiring = Hiring(self.workers, self._turns, make, ready, self._kill, room, seconds_for_room, number)

    async def start(self) -> None:
        """Start as many workers as are needed, at once.

        Raises NoRoom, NoWorkers, or what `ready` said that another attempt would not mend.
        """
        await self._hiring.start()

    def grow(self) -> None:
        """Let the others join from now on, each when there is room for it; called once."""
        self._hiring.grow()

    @property
    def live(self) -> list[Worker]:
        """Those that can work now."""
        return [worker for worker in self.workers if worker.live]

    def load(self, service: str) -> dict[str, float]:
        """What the log tells of the work: what waits for a place, and who has how much and was started how often."""
        known = [worker for worker in self.workers if worker.starts]
        return {
            f"queue/{service}": float(self._turns.waiting),
            f"live/{service}": float(len(self.live)),
            **{f"worker/{worker.name}/groups": float(worker.busy) for worker in known},
            **{f"worker/{worker.name}/starts": float(worker.starts) for worker in known},
        }

    async def do(self, work: Callable[[Worker], Awaitable[Result]], what: str) -> Result:
        """What the worker with most room made of `work`; another one does it where that is lost or fails.

        Raises EngineError where every attempt failed, NoWorkers where too few workers are there and no other could be
        had, and at once what else the work raises.
        """
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._turns.place()
            actor = worker.actor
            try:
                return await work(worker)
            except LOST as error:
                self.lost(worker, actor, error)
            except EngineError as error:
                logger.warning("%s, %s, attempt %d: %s", worker.name, what, attempt, error)
            finally:
                self._turns.give_back(worker)
        raise EngineError(f"{what}: {ATTEMPTS} attempts failed, the workers' logs say why")

    async def each(self, work: Callable[[Worker], Awaitable[None]]) -> None:
        """Let every live worker do `work`; one that is lost over it is replaced."""
        await asyncio.gather(*(self.let(worker, work) for worker in self.live))

    async def let(self, worker: Worker, work: Callable[[Worker], Awaitable[None]]) -> None:
        """Let this live worker do `work`, beside what it is given; where it is lost over it, it is replaced."""
        actor = worker.actor
        try:
            await work(worker)
        except LOST as error:
            self.lost(worker, actor, error)

    def limit(self, worker: Worker, at_once: float) -> None:
        """Give a worker no more than so many pieces of work at once from now on; what it has it keeps."""
        worker.at_once = at_once
        self._turns.serve()

    def lost(self, worker: Worker, actor: Any, error: BaseException) -> None:
        """Replace a worker, once however many report the death of this actor of its."""
        if not worker.live or worker.actor is not actor:
            return
        worker.live = False
        self.restarts += 1
        logger.warning("%s is lost and will be replaced; its work is given to others: %s", worker.name, error)
        self._kill(actor)
        self._hiring.bring_up(worker)

    async def close(self, seconds: float, setting: str) -> None:
        """End the actors' processes, after each live one's own `close` within `seconds`, which `setting` gave."""
        await self._hiring.end()
        await asyncio.gather(*(self._end(worker, seconds, setting) for worker in self.workers))

    async def _end(self, worker: Worker, seconds: float, setting: str) -> None:
        if worker.live:
            try:
                await within(worker.actor.close.remote(), seconds, f"{worker.name} to close", setting)
            except (*ACTOR_LOST, WaitedTooLong) as error:
                logger.warning("%s did not close by itself: %s", worker.name, error)
        if worker.actor is not None:
            self._kill(worker.actor)
        if worker.room is not None:
            worker.room.remove()
