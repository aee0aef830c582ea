"""The learner ranks as one: every call goes to all of them, and all are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import ray

from cluster.actor_names import next_name
from cluster.allocator import allocator_environment
from cluster.learner_loss import results_of
from cluster.room import Room
from cluster.waiting import within
from configs.bundles import learner_ranks
from configs.placement import Deal, learner_of
from configs.schema import Learner
from learner.policy import Rank

# Of a call's limit: ranks that wait for one that hangs are to fail before the driver has waited for all of them.
_COLLECTIVES_SHARE = 0.5


class LearnerGroup:
    """Ranks of one job, on one Ray actor each."""

    def __init__(
        self, actors: Sequence[ray.actor.ActorHandle], seconds_per_wait: float, room: Room | None = None
    ) -> None:
        """The actors end with the group, and with them the room they are in."""
        self._actors = list(actors)
        self._seconds = seconds_per_wait
        self._seconds_per_collective = _COLLECTIVES_SHARE * seconds_per_wait
        self._room = room

    @classmethod
    async def start(
        cls,
        kind: Any,
        settings: Learner,
        arguments: Sequence[object],
        seconds_per_wait: float,
        room: Room | None = None,
    ) -> Self:
        """Create the ranks and call `start(rank, *arguments)` on each; large arguments are stored once.

        They are in `room`, or in one of their own. Raises NoRoom where the cluster has none, and LearnerLost.
        """
        group = cls([], seconds_per_wait, room or Room(learner_ranks(settings)))
        try:
            ranks = await group._create(kind, settings)
            placed = within(group._actors[0].address.remote(), seconds_per_wait, "learner-0 to be placed")
            (address,) = await results_of({"learner-0": asyncio.create_task(placed)}, "address")
            if settings.cores is not None:  # before they load a model and start threads
                await group._gather("keep_on", [(rank.cores[0], n) for n, rank in enumerate(ranks) if rank.cores])
            stored = [ray.put(argument) for argument in arguments]
            places = [
                Rank(index, settings.ranks, address, group._seconds_per_collective) for index in range(settings.ranks)
            ]
            await group._gather("start", [(place, *stored) for place in places])
        except BaseException:
            group.close()  # a rank that started holds its share of the machine
            raise
        return group

    async def _create(self, kind: Any, settings: Learner) -> list[Learner]:
        """The actors; returns the settings of each."""
        assert self._room is not None, "it was started"
        await self._room.held(asyncio.timeout(self._seconds))
        deal = Deal(settings.cores)
        ranks = [learner_of(settings, deal.cores(index, node)) for index, node in enumerate(self._room.nodes())]
        for index, rank in enumerate(ranks):
            self._actors.append(_actor(kind, rank, next_name(f"learner-{index}"), self._room.options(index)))
        return ranks

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self._actors)

    async def call(self, method: str, *arguments: object) -> list[Any]:
        """Call a method with the same arguments on every rank; results by rank. Raises LearnerLost."""
        return await self._gather(method, [arguments] * len(self._actors))

    async def call_each(self, method: str, arguments: Sequence[Sequence[object]]) -> list[Any]:
        """Call a method with each rank's own arguments; results by rank. Raises LearnerLost."""
        return await self._gather(method, arguments)

    async def _gather(self, method: str, arguments: Sequence[Sequence[object]]) -> list[Any]:
        references = [getattr(actor, method).remote(*own) for actor, own in zip(self._actors, arguments, strict=True)]
        names = [f"learner-{index}" for index in range(self.size)]
        calls = {
            name: asyncio.create_task(within(reference, self._seconds, f"{name} to {method}"))
            for name, reference in zip(names, references, strict=True)
        }
        return await results_of(calls, method, self._seconds_per_collective)

    def close(self) -> None:
        """End the ranks' processes."""
        for actor in self._actors:
            ray.kill(actor)
        if self._room is not None:
            self._room.remove()


def _actor(kind: Any, settings: Learner, name: str, place: dict[str, Any]) -> ray.actor.ActorHandle:
    """A rank's actor; where its settings say nothing of threads, it looks what its node gives it."""
    threads = settings.threads_per_rank
    variables = allocator_environment(settings.gpus_per_rank)
    if threads is not None:
        variables["OMP_NUM_THREADS"] = str(threads)
    options = {"name": name, **place, "runtime_env": {"env_vars": variables}}
    return kind.options(**options).remote(threads, settings.gpus_per_rank == 0)
