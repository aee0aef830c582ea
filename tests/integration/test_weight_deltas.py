"""Deltas through the real Ray: a learner's process, workers' processes, and one worker that joins late."""

from __future__ import annotations

import asyncio

import pytest
import ray

from cluster.delta_sender import DeltaSender
from cluster.receiver import Receiver
from cluster.weight_update import WeightUpdate
from rollout.checksum import checksum
from rollout.simulated import SimulatedEngine, Simulation
from tests.unit.test_weight_transfer import published, stepped, weights

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_ray")]


@ray.remote(num_cpus=0)
class Learner:
    def __init__(self) -> None:
        self._sender = DeltaSender(full_every=3)
        self._weights = weights(values=400_000)

    def publish(self, version: int) -> WeightUpdate:
        self._weights = stepped(self._weights, 0.01, version)
        return published(self._sender, version, self._weights)


@ray.remote(num_cpus=0)
class Worker:
    def __init__(self) -> None:
        self._receiver = Receiver()
        self._engine = SimulatedEngine(Simulation(), 0, checksum=checksum)

    async def load(self, update: WeightUpdate) -> str:
        return await self._receiver.load(update, self._engine)


def test_workers_in_other_processes_hold_what_the_learner_sent_whenever_they_joined() -> None:
    async def job() -> list[tuple[int, list[bool]]]:
        learner, workers, found = Learner.remote(), [Worker.remote()], []
        for version in range(1, 7):
            if version in (3, 4):  # among deltas, and with a new whole copy
                workers.append(Worker.remote())
            update: WeightUpdate = await learner.publish.remote(version)
            held = await asyncio.gather(*(worker.load.remote(update) for worker in workers))
            found.append((len(update.deltas), [checksum == update.checksum for checksum in held]))
        return found

    assert asyncio.run(job()) == [
        (0, [True]),
        (1, [True]),
        (2, [True, True]),
        (1, [True] * 3),
        (1, [True] * 3),
        (2, [True] * 3),
    ]
