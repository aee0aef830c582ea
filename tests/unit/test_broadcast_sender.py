"""Offers of weights and their taking, over gloo; threads stand for the learner's actor and the engine's processes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import RayError

from cluster import broadcast_sender
from cluster.broadcast_sender import BroadcastSender, take_offer
from rollout.broadcast import Layout, Meeting, receive
from rollout.checksum import checksum
from rollout.engine import EngineDied

CPU = torch.device("cpu")


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"matrix": torch.full((3, 4), value, dtype=torch.bfloat16), "norm": torch.full((5,), float(value))}


class Source:
    """Rank 0's actor: what is called remotely runs in a thread; `fails` after it has sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sender = BroadcastSender(seconds_per_wait=60.0)
        self.fails = False
        context = SimpleNamespace(current_actor=SimpleNamespace(send=SimpleNamespace(remote=self._remote)))
        monkeypatch.setattr(broadcast_sender.ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(broadcast_sender.ray.util, "get_node_ip_address", lambda: "127.0.0.1")

    def _remote(self, version: int, where: Meeting) -> asyncio.Task[None]:
        return asyncio.create_task(self._send(version, where))

    async def _send(self, version: int, where: Meeting) -> None:
        await asyncio.to_thread(self.sender.send, version, where)
        if self.fails:
            raise RayError("the actor died")


class Engine:
    """Two processes that keep what they receive; `spoilt`: they find something else."""

    processes = 2

    def __init__(self, spoilt: bool = False) -> None:
        self.spoilt = spoilt
        self.closed = False

    async def receive_weights(self, version: int, where: Meeting, layout: Layout) -> str:
        def process(rank: int) -> str:
            found = {name: tensor for bucket in receive(where, rank, layout, CPU) for name, tensor in bucket.items()}
            return checksum(found)

        first, second = await asyncio.gather(*(asyncio.to_thread(process, rank) for rank in range(self.processes)))
        assert first == second
        return "other" if self.spoilt else first

    async def close(self) -> None:
        self.closed = True


def taken(offer: Any, engine: Engine) -> str:
    async def job() -> str:
        return await take_offer(offer, engine)  # type: ignore[arg-type]

    return asyncio.run(job())


def test_a_version_and_the_one_before_can_be_had_and_no_older_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Source(monkeypatch).sender
    _, before, newest = (sender.publish(version, [weights(version)]) for version in (1, 2, 3))

    for offer in (newest, before):
        assert taken(offer, Engine()) == offer.checksum == checksum(weights(offer.version))
    assert newest.nbytes == 3 * 4 * 2 + 5 * 4
    with pytest.raises(KeyError):
        sender.send(1, Meeting("127.0.0.1", 1, 2, 1.0))


def test_an_engine_that_found_other_weights_or_whose_sender_failed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(monkeypatch)
    offer = source.sender.publish(7, [weights(7)])
    spoilt, sound = Engine(spoilt=True), Engine()

    with pytest.raises(EngineDied, match="weights with checksum other came as version 7"):
        taken(offer, spoilt)
    source.fails = True
    with pytest.raises(EngineDied, match="version 7 came, but rank 0 failed in sending it: the actor died"):
        taken(offer, sound)

    assert spoilt.closed and sound.closed
