"""Keeps each rollout worker to its number of groups: a fixed one, none, or one that is found while it runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from statistics import fmean

from cluster.concurrency import AdaptiveLimit
from cluster.supervisor import Supervisor, Worker
from configs.schema import GroupsPerWorker
from rollout.occupancy import Occupancy

SECONDS_BETWEEN_LOOKS = 1.0


class GroupLimits:
    """The limits of a supervisor's workers."""

    def __init__(
        self, supervisor: Supervisor, sequences_at_once: int, ask: Callable[[Worker], Awaitable[Occupancy]]
    ) -> None:
        self._supervisor = supervisor
        self._sequences = sequences_at_once
        self._ask = ask
        self._found: dict[int, Occupancy] = {}  # by worker, what its engine said last
        self._preempted = 0

    async def keep(self, groups: GroupsPerWorker | int | None, samples_per_group: int) -> None:
        """Until it is cancelled, let no worker have more groups at once; None is no limit."""
        workers = self._supervisor.workers
        if groups is GroupsPerWorker.ADAPTIVE:
            first: float = AdaptiveLimit(samples_per_group, self._sequences).groups
        else:
            first = groups or math.inf
        for worker in workers:
            self._supervisor.limit(worker, first)
        try:
            if groups is not GroupsPerWorker.ADAPTIVE:
                await asyncio.Event().wait()
            async with asyncio.TaskGroup() as watches:
                for worker in workers:
                    watches.create_task(self._watch(worker, samples_per_group))
        finally:
            for worker in workers:
                self._supervisor.limit(worker, math.inf)
            self._found.clear()

    def metrics(self) -> dict[str, float]:
        """Means over the workers that were asked, and the requests put back since the last call; empty without any."""
        asked = [(worker, self._found[worker.index]) for worker in self._supervisor.live if worker.index in self._found]
        if not asked:
            return {}
        preempted, self._preempted = self._preempted, 0
        return {
            "engine/groups_at_most": fmean(worker.at_once for worker, _ in asked),
            "engine/groups": fmean(worker.busy for worker, _ in asked),
            "engine/waiting": fmean(found.waiting for _, found in asked),
            "engine/kv_use": fmean(found.kv_use for _, found in asked),
            "engine/preempted": float(preempted),
        }

    async def _watch(self, worker: Worker, samples_per_group: int) -> None:
        """Ask a worker's engine now and then, not where a group ends: with a long tail none may for a long time."""

        async def look(worker: Worker) -> None:
            found = await self._ask(worker)
            limit.saw(found, worker.busy)
            self._found[worker.index] = found
            self._preempted += found.preempted
            self._supervisor.limit(worker, limit.groups)

        while True:
            limit, starts = AdaptiveLimit(samples_per_group, self._sequences), worker.starts
            self._supervisor.limit(worker, limit.groups)
            while worker.starts == starts:  # a new engine begins anew
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
                if worker.live:
                    await self._supervisor.let(worker, look)
