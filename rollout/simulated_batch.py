"""The places and the room for keys and values of a simulated engine, first come, first served."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rollout.occupancy import Occupancy, OccupancyMeter


@dataclass(slots=True, eq=False)
class Seat:
    """A request's place."""

    tokens: int  # that it has, or waits for, room for
    turn: asyncio.Future[None]  # done: it is seated


class SimulatedBatch:
    """Who is seated, and who waits. None is no limit."""

    def __init__(self, sequences: int | None, kv_tokens: int | None) -> None:
        self._sequences = math.inf if sequences is None else sequences
        self._kv_tokens = math.inf if kv_tokens is None else kv_tokens
        self._seated: set[Seat] = set()
        self._waiting: deque[Seat] = deque()
        self._used = 0
        self._meter = OccupancyMeter()

    @asynccontextmanager
    async def seat(self, tokens: int) -> AsyncIterator[Seat]:
        """A place with room for so many tokens. Raises ValueError where there never is so much."""
        seat = Seat(tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(seat)
        with self._meter.request():
            try:
                await self._turn(seat)
                yield seat
            finally:
                self._leave(seat)

    async def grow(self, seat: Seat, tokens: int) -> bool:
        """Room for so many more tokens; returns whether it had to be waited for.

        Where there is none the request is put back, and waits before all others for as much as it needs.
        """
        if self._used + tokens <= self._kv_tokens:
            seat.tokens += tokens
            self._used += tokens
            self._saw()
            return False
        self._give_up(seat)
        seat.tokens += tokens
        seat.turn = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(seat)
        self._saw(preempted=1)
        await self._turn(seat)
        return True

    def occupancy(self) -> Occupancy:
        """Since the last reading."""
        return self._meter.read()

    def _leave(self, seat: Seat) -> None:
        if seat in self._seated:
            self._give_up(seat)
        else:
            self._waiting.remove(seat)
        self._serve()

    async def _turn(self, seat: Seat) -> None:
        if seat.tokens > self._kv_tokens:
            raise ValueError(f"a request of {seat.tokens} tokens never fits into {self._kv_tokens}")
        self._serve()
        await seat.turn

    def _give_up(self, seat: Seat) -> None:
        self._seated.remove(seat)
        self._used -= seat.tokens

    def _serve(self) -> None:
        while (
            self._waiting
            and len(self._seated) < self._sequences
            and self._used + self._waiting[0].tokens <= self._kv_tokens
        ):
            seat = self._waiting.popleft()
            self._seated.add(seat)
            self._used += seat.tokens
            if not seat.turn.done():  # cancelled, and about to leave
                seat.turn.set_result(None)
        self._saw()

    def _saw(self, preempted: int = 0) -> None:
        self._meter.saw(len(self._waiting), self._used / self._kv_tokens, preempted)
