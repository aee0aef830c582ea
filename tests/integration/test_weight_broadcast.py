"""Weights past the object store between real Ray actors, over gloo: a learner that trains meanwhile, and workers."""

from __future__ import annotations

import asyncio
import threading

import pytest
import ray
import torch

from cluster.broadcast_sender import BroadcastSender, Offer, take_offer
from cluster.waiting import within
from rollout.broadcast import Layout, Meeting, receive
from rollout.checksum import checksum
from rollout.engine import EngineDied
from tests.unit.test_weight_transfer import buckets, stepped, weights

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_ray")]

CPU = torch.device("cpu")


@ray.remote(num_cpus=0, concurrency_groups={"transfer": 4})
class Learner:
    """As `cluster.learner_actors.RlSendingActor`, without a model."""

    def __init__(self) -> None:
        self._sender = BroadcastSender(seconds_per_update=120.0)
        self._weights = weights()
        self._trained = threading.Event()

    def publish(self, version: int) -> Offer:
        self._weights = stepped(self._weights, 0.01, version)
        return self._sender.publish(version, buckets(self._weights))

    def step(self) -> None:
        self._trained.wait()

    @ray.method(concurrency_group="transfer")
    def end_step(self) -> None:
        self._trained.set()

    @ray.method(concurrency_group="transfer")
    def send(self, version: int, where: Meeting) -> None:
        self._sender.send(version, where)


class Receiving:
    """An engine of two processes that keeps nothing; `spoilt`: it finds other weights than came."""

    processes = 2

    def __init__(self, spoilt: bool) -> None:
        self._spoilt = spoilt
        self.closed = False

    async def receive_weights(self, version: int, where: Meeting, layout: Layout) -> str:
        def process(rank: int) -> str:
            found = {name: tensor for bucket in receive(where, rank, layout, CPU) for name, tensor in bucket.items()}
            return checksum(found)

        first, second = await asyncio.gather(*(asyncio.to_thread(process, rank) for rank in range(self.processes)))
        assert first == second
        return "other" if self._spoilt else first

    async def close(self) -> None:
        self.closed = True


@ray.remote(num_cpus=0)
class Worker:
    async def load(self, offer: Offer, spoilt: bool = False) -> str:
        engine = Receiving(spoilt)
        try:
            return await take_offer(offer, engine)  # type: ignore[arg-type]
        finally:
            assert engine.closed is spoilt


def test_workers_take_a_version_or_the_one_before_while_the_learner_trains_and_know_a_wrong_one() -> None:
    async def job() -> None:
        learner, workers = Learner.remote(), [Worker.remote() for _ in range(3)]
        await learner.publish.remote(1)
        before: Offer = await learner.publish.remote(2)
        offer: Offer = await learner.publish.remote(3)
        step = learner.step.remote()

        first, second, old = await asyncio.gather(
            workers[0].load.remote(offer), workers[1].load.remote(offer), workers[2].load.remote(before)
        )
        ended, _ = ray.wait([step], timeout=0)

        assert (first, second, old) == (offer.checksum, offer.checksum, before.checksum)
        assert offer.checksum != before.checksum
        assert ended == []
        await learner.end_step.remote()
        await within(step, 60.0, "the step to end")
        with pytest.raises(EngineDied, match="weights with checksum other came as version 3"):
            await workers[0].load.remote(offer, spoilt=True)

    asyncio.run(job())
