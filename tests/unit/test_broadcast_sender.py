"""Offers of weights and their taking, over gloo; threads stand for the learner's actor and the engine's processes."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
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
    """Rank 0's actor: what is called remotely runs in a thread; `fails` after it has sent, or `refuses` to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sender = BroadcastSender(seconds_per_update=60.0)
        self.fails = self.refuses = False
        context = SimpleNamespace(current_actor=SimpleNamespace(send=SimpleNamespace(remote=self._remote)))
        monkeypatch.setattr(broadcast_sender.ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(broadcast_sender.ray.util, "get_node_ip_address", lambda: "127.0.0.1")

    def _remote(self, version: int, where: Meeting) -> asyncio.Task[None]:
        return asyncio.create_task(self._send(version, where))

    async def _send(self, version: int, where: Meeting) -> None:
        if self.refuses:
            raise RayError("CUDA out of memory")
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


class WaitingEngine(Engine):
    """Its processes wait for a sender that does not come; `done` says what became of it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def receive_weights(self, version: int, where: Meeting, layout: Layout) -> str:
        try:
            await asyncio.sleep(20.0)
        except asyncio.CancelledError:
            self.done.append("cancelled")
            raise
        raise EngineDied("waited for its limit")

    async def close(self) -> None:
        self.done.append("closed")


class FailingEngine(Engine):
    """Its process has died."""

    async def receive_weights(self, version: int, where: Meeting, layout: Layout) -> str:
        raise EngineDied("its process is gone")


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


def test_no_more_than_two_versions_are_held_while_a_third_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, others = Source(monkeypatch).sender, list[list[bool]]()
    kept: list[weakref.ref[torch.Tensor]] = []

    def buckets(version: int) -> Iterator[dict[str, torch.Tensor]]:
        others.append([tensor() is not None for tensor in kept])
        matrix = torch.full((3, 4), float(version))
        kept.append(weakref.ref(matrix))
        yield {"matrix": matrix}

    for version in (1, 2, 3, 4):
        sender.publish(version, buckets(version))

    assert others == [[], [True], [False, True], [False, False, True]]


def test_a_sender_that_fails_before_its_first_bucket_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(monkeypatch)
    offer, engine = source.sender.publish(7, [weights(7)]), WaitingEngine()
    source.refuses = True

    with pytest.raises(EngineDied, match="rank 0 failed in sending version 7: CUDA out of memory") as told:
        taken(offer, engine)

    assert isinstance(told.value.__cause__, RayError)
    assert engine.done == ["cancelled", "closed"]


def test_an_engine_that_fails_first_leaves_no_wait_for_the_sender_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def job() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        with pytest.raises(EngineDied, match="its process is gone"):
            await take_offer(offer, FailingEngine())  # type: ignore[arg-type]
        return len(asyncio.all_tasks())

    complaints: list[object] = []
    source = Source(monkeypatch)
    monkeypatch.setattr(source.sender, "send", lambda *_: time.sleep(0.2))
    offer = source.sender.publish(7, [weights(7)])

    assert asyncio.run(job()) == 1
    gc.collect()
    assert not complaints
