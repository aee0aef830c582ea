"""Who gets a place at a worker, and when: those who have waited longest, at the worker with most room."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.room import Room


class NoWorkers(RuntimeError):
    """A worker cannot be started."""


@dataclass(slots=True, eq=False)
class Worker:
    """A place for an actor, and the actor that holds it now."""

    index: int
    name: str
    actor: Any = None  # a Ray actor handle
    room: Room | None = None  # on a node, for this actor and its successors
    starts: int = 0
    busy: int = 0  # pieces of work under way
    at_once: float = math.inf  # of them, at most
    live: bool = False


class Turns:
    """Those who wait for a place at one of these workers."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._waiting: deque[asyncio.Future[Worker]] = deque()  # in the order they asked
        self._fatal: BaseException | None = None

    @property
    def waiting(self) -> int:
        """How many they are."""
        return sum(not turn.done() for turn in self._waiting)

    async def place(self) -> Worker:
        """A worker with room, in which a place is taken; to be given back. Raises NoWorkers after `fail`."""
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # cancelled with the place in its hand
                self.give_back(turn.result())
            raise

    def give_back(self, worker: Worker) -> None:
        """A piece of work has ended."""
        worker.busy -= 1
        self.serve()

    def fail(self, cause: BaseException) -> None:
        """Nobody gets a place any more."""
        self._fatal = cause
        self.serve()

    def serve(self) -> None:
        """Hand the places there are to those who have waited longest. No one else is woken: hundreds may wait."""
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            if self._fatal is not None:
                failure = NoWorkers("too few workers are there, and one could not be replaced")
                failure.__cause__ = self._fatal
                self._waiting.popleft().set_exception(failure)
                continue
            with_room = [worker for worker in self._workers if worker.live and worker.busy < worker.at_once]
            if not with_room:
                return
            worker = min(with_room, key=lambda worker: (worker.busy - worker.at_once, worker.busy))
            worker.busy += 1
            self._waiting.popleft().set_result(worker)
