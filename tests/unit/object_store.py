"""Stands for Ray's object store: what is put comes out read-only and lives as long as a reference to it."""

from __future__ import annotations

import pickle
from collections.abc import Generator
from typing import Any
from weakref import WeakSet


class Reference:
    """To an object in the store; awaiting it gives the object."""

    def __init__(self, value: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._header = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        self._buffers = [buffer.raw().tobytes() for buffer in buffers]
        self.reads = 0

    @property
    def nbytes(self) -> int:
        return len(self._header) + sum(map(len, self._buffers))

    def spoil(self) -> None:
        """Turn a bit of the last array; or of the first with anything in it."""
        found = max(index for index, buffer in enumerate(self._buffers) if buffer)
        data = bytearray(self._buffers[found])
        data[-1] ^= 1
        self._buffers[found] = bytes(data)

    def __await__(self) -> Generator[None, None, Any]:
        self.reads += 1
        yield from ()
        return pickle.loads(self._header, buffers=self._buffers)


class ObjectStore:
    """`put` stands for `ray.put`."""

    def __init__(self) -> None:
        self._alive: WeakSet[Reference] = WeakSet()

    def put(self, value: object) -> Reference:
        reference = Reference(value)
        self._alive.add(reference)
        return reference

    @property
    def nbytes(self) -> int:
        """Of all that is referred to."""
        return sum(reference.nbytes for reference in self._alive)
