"""Groups of threads instead of processes, over gloo: each has a store and a backend of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist

from rollout.broadcast import Layout, Meeting, TransferFailed, layout_of, receive, send
from rollout.checksum import checksum

CPU = torch.device("cpu")
BUCKETS = [
    {"odd": torch.arange(7, dtype=torch.uint8), "matrix": torch.randn(5, 3).bfloat16(), "t": torch.randn(4, 6).t()},
    {"one": torch.tensor(2.5), "none": torch.empty(0, 4), "ids": torch.arange(9)},
]


def meeting(members: int, seconds: float = 30.0) -> Meeting:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Meeting("127.0.0.1", probe.getsockname()[1], members, seconds)


def received(where: Meeting, rank: int, layout: Layout) -> dict[str, torch.Tensor]:
    return {name: tensor for bucket in receive(where, rank, layout, CPU) for name, tensor in bucket.items()}


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [running.result() for running in [threads.submit(call) for call in calls]]


@pytest.mark.parametrize("receivers", [1, 2])
def test_whoever_receives_holds_what_was_sent_bit_for_bit(receivers: int) -> None:
    where, layout = meeting(receivers + 1), layout_of(BUCKETS)

    _, *found = at_once(
        lambda: send(where, BUCKETS, CPU), *(lambda r=r: received(where, r, layout) for r in range(receivers))
    )

    everything = {name: tensor for bucket in BUCKETS for name, tensor in bucket.items()}
    assert len(found) == receivers
    assert all(checksum(tensors) == checksum(everything) for tensors in found)


def test_a_receiver_that_meets_the_others_late_finds_the_one_whose_store_they_meet_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, buckets = meeting(3), BUCKETS[:1]  # of two, the second one waits until all have had the first
    left, gloo = threading.Event(), dist.ProcessGroupGloo

    def slow(store: Any, rank: int, *rest: Any) -> Any:
        group = gloo(store, rank, *rest)
        if rank == 1:
            left.wait(0.5)  # the others are done
            store.num_keys()  # stands for the last that it reads there
        return group

    def first() -> None:
        received(where, 0, layout_of(buckets))
        left.set()

    monkeypatch.setattr(dist, "ProcessGroupGloo", slow)

    _, _, found = at_once(lambda: send(where, buckets, CPU), first, lambda: received(where, 1, layout_of(buckets)))

    assert checksum(found) == checksum(buckets[0])


def test_a_sender_that_does_not_come_is_waited_for_no_longer_than_was_said() -> None:
    with pytest.raises(
        TransferFailed, match=r"rank 0 of 2 \(the last one sends\) did not meet the others at 127.0.0.1"
    ):
        received(meeting(2, seconds=1.0), 0, layout_of(BUCKETS))


def test_a_receiver_that_does_not_come_is_waited_for_no_longer_than_was_said() -> None:
    with pytest.raises(
        TransferFailed, match=r"rank 1 of 2 \(the last one sends\) did not meet the others at 127.0.0.1"
    ):
        send(meeting(2, seconds=1.0), BUCKETS, CPU)


def test_a_bucket_that_is_never_sent_is_waited_for_no_longer_than_was_said() -> None:
    where = meeting(2, seconds=1.0)

    with pytest.raises(TransferFailed, match="rank 0 of 2"):
        at_once(lambda: received(where, 0, layout_of(BUCKETS)), lambda: send(where, BUCKETS[:1], CPU))
