"""Room on a cluster that is not there; what it has, the test says."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.room import NoRoom
from configs.bundles import Asked


class FakeRoom:
    """Stands for `cluster.room.Room`: there at once, or while `there` is set."""

    def __init__(self, asked: Asked, node: str = "node-0") -> None:
        self.asked = asked
        self.node = node
        self.there = asyncio.Event()
        self.there.set()
        self.removed = False

    async def held(self, limit: asyncio.Timeout) -> None:
        try:
            async with limit:
                await self.there.wait()
        except TimeoutError:
            raise NoRoom(f"no room for {self.asked}") from None

    def options(self, number: int = 0) -> dict[str, Any]:
        return {"num_cpus": self.asked.bundle.cpus, "num_gpus": self.asked.bundle.gpus}

    def nodes(self) -> list[str]:
        return [self.node] * self.asked.count

    def remove(self) -> None:
        self.removed = True
