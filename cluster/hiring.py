"""How workers come to be there: at the start, later as the cluster has room for more, and again when one is lost.

A number of the workers is needed, whichever they are. As long as so many live, each of the rest may wait for room on
a node for as long as that takes, and one that cannot be started is tried again later. With fewer, either is the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ray.exceptions import ObjectLostError

from cluster.room import Room
from cluster.turns import NoWorkers, Turns, Worker
from cluster.waiting import ACTOR_LOST, WaitedTooLong, together
from rollout.engine import EngineDied, EngineError

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # times a worker is started, and work is given to one, before the fault is taken as the input's
LOST = (*ACTOR_LOST, EngineDied, WaitedTooLong)
SECONDS_OF_REST = 60.0  # after so many attempts to start a worker that the others can do without


class Hiring:
    """Brings actors up into the workers' places. What each argument does: see `Supervisor`."""

    def __init__(
        self,
        workers: Sequence[Worker],
        turns: Turns,
        make: Callable[[Worker], Any],
        ready: Callable[[Worker], Awaitable[None]],
        kill: Callable[[Any], None],
        room: Callable[[Worker], Room] | None,
        seconds_for_room: float | None,
        needed: int,
    ) -> None:
        self._workers = workers
        self._turns = turns
        self._make = make
        self._ready = ready
        self._kill = kill
        self._room = room
        self._seconds_for_room = seconds_for_room
        self._needed = needed
        self._limits: set[asyncio.Timeout] = set()  # of the waits for room that began when too few workers lived
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bring up as many workers as are needed, at once."""
        await together(*map(self._bring_up, self._workers[: self._needed]))

    def grow(self) -> None:
        """Bring up the others, each when there is room for it."""
        for worker in self._workers[self._needed :]:
            self.bring_up(worker)

    def bring_up(self, worker: Worker) -> None:
        """Bring up a worker that does not live, or does no longer, for as long as that takes where it may."""
        task = asyncio.create_task(self._hire(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Bring up no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _live(self) -> int:
        return sum(worker.live for worker in self._workers)

    @property
    def _short(self) -> bool:
        return self._live < self._needed

    async def _hire(self, worker: Worker) -> None:
        lost, before = time.monotonic(), worker.starts
        while not worker.live:
            try:
                await self._bring_up(worker)
            except Exception as error:
                if self._short:
                    logger.exception("%s cannot be had", worker.name)
                    self._turns.fail(error)  # whoever waits for a worker raises it
                    return
                logger.exception("%s cannot be had; it is tried again in %.0f s", worker.name, SECONDS_OF_REST)
                await asyncio.sleep(SECONDS_OF_REST)
        if before:
            logger.warning("%s works again, %.1f s after it was lost", worker.name, time.monotonic() - lost)
        else:
            logger.warning("%s has joined: %d are there", worker.name, self._live)

    async def _bring_up(self, worker: Worker) -> None:
        cause: BaseException | None = None
        for _ in range(ATTEMPTS):
            await self._place(worker)
            worker.actor = self._make(worker)
            worker.starts += 1
            try:
                await self._ready(worker)
            except (*LOST, EngineError, ObjectLostError) as error:  # lost: weights whose publisher has ended
                logger.warning("%s did not start: %s", worker.name, error)
                self._kill(worker.actor)
                cause = error
            except Exception:  # no other attempt would mend it
                self._kill(worker.actor)
                raise
            else:
                worker.live = True  # with no await since `ready` ended: what it saw last still holds
                if not self._short:
                    self._lift_limits()
                self._turns.serve()
                return
        raise NoWorkers(f"{worker.name} could not be started in {ATTEMPTS} attempts") from cause

    async def _place(self, worker: Worker) -> None:
        if self._room is None:
            return
        worker.room = worker.room or self._room(worker)
        limit = asyncio.timeout(self._seconds_for_room if self._short else None)
        self._limits.add(limit)
        try:
            await worker.room.held(limit)
        finally:
            self._limits.discard(limit)

    def _lift_limits(self) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(None)
