"""How full an engine is: what it says of each of its steps, summed up for whoever asks now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Occupancy:
    """An engine, since it was last asked."""

    unfinished: int  # requests that it has now
    finished: int  # requests that it is done with
    waiting: int  # the shortest queue before its batch: a burst that was soon served is none
    kv_use: float  # share of the keys' and values' room that is taken now
    preempted: int  # requests that were put back because that room had run out


class OccupancyMeter:
    """Is told of every step and every request, and read now and then."""

    def __init__(self) -> None:
        self._unfinished = 0
        self._finished = 0
        self._waiting = 0
        self._least_waiting: int | None = None  # None: no step since the last reading
        self._kv_use = 0.0
        self._preempted = 0

    def saw(self, waiting: int, kv_use: float, preempted: int) -> None:
        """A step ended with so many requests waiting, and put so many back."""
        self._waiting = waiting
        self._least_waiting = waiting if self._least_waiting is None else min(self._least_waiting, waiting)
        self._kv_use = kv_use
        self._preempted += preempted

    @contextmanager
    def request(self) -> Iterator[None]:
        """The engine has a request."""
        self._unfinished += 1
        try:
            yield
        finally:
            self._unfinished -= 1
            self._finished += 1

    def read(self) -> Occupancy:
        """What was seen since the last reading."""
        waiting = self._waiting if self._least_waiting is None else self._least_waiting
        found = Occupancy(self._unfinished, self._finished, waiting, self._kv_use, self._preempted)
        self._least_waiting, self._finished, self._preempted = None, 0, 0
        return found
