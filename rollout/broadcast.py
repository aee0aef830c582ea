"""Tensors from one process into the devices of others, past Ray: NCCL between GPUs, gloo where there are none.

A group of processes is made for one transfer and ends with it. Members of a lasting group could not be replaced, as
rollout workers are, and one that died would leave the others in a collective; here it leaves a transfer that reaches
its limit. What that costs is meeting anew for each: about a second where it is NCCL.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist

_SECONDS_BETWEEN_LOOKS = 0.002


class TensorKind(NamedTuple):
    """What a receiver must know of a tensor before it comes."""

    name: str
    dtype: str  # torch's name, without "torch."
    shape: Sequence[int]


Layout = Sequence[Sequence[TensorKind]]  # by bucket: what is sent at once


class TransferFailed(RuntimeError):
    """A member was missing, or did not come to an end."""


class Meeting(NamedTuple):
    """Where the members of a group meet, and how many they are: the sender comes last, whoever else before it."""

    host: str
    port: int
    members: int
    seconds: float  # limit of the meeting, and of each bucket

    @property
    def sender(self) -> int:
        """The sender's rank. Rank 0, a receiver, is the one the others find at `host`."""
        return self.members - 1


def layout_of(buckets: Iterable[Mapping[str, torch.Tensor]]) -> Layout:
    """What `receive` needs of the buckets that `send` gets."""
    return [
        [TensorKind(n, str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in bucket.items()]
        for bucket in buckets
    ]


def send(meeting: Meeting, buckets: Iterable[Mapping[str, torch.Tensor]], device: torch.device) -> None:
    """Send tensors, which may be on the CPU, by way of `device`. Raises TransferFailed, naming the rank."""
    # What else the process computes on its GPU does not wait for this, nor this for that.
    apart = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
    with apart, _Group(meeting, meeting.sender, device) as group:
        for bucket in buckets:
            flat = [tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in bucket.values()]
            group.broadcast(torch.cat(flat).to(device))


def receive(meeting: Meeting, rank: int, layout: Layout, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """The buckets that are sent, on `device`; to be exhausted. Raises TransferFailed, naming the rank."""
    with _Group(meeting, rank, device) as group:
        for kinds in layout:
            sizes = [math.prod(kind.shape) * getattr(torch, kind.dtype).itemsize for kind in kinds]
            flat = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
            group.broadcast(flat)
            # Copies: a view of another type must begin at a multiple of its size.
            yield {
                kind.name: part.clone().view(getattr(torch, kind.dtype)).view(tuple(kind.shape))
                for kind, part in zip(kinds, flat.split(sizes), strict=True)
            }


class _Group:
    """A process group beside those that torch.distributed knows of: the processes have others already."""

    def __init__(self, meeting: Meeting, rank: int, device: torch.device) -> None:
        self._meeting, self._rank = meeting, rank
        self._who = f"rank {rank} of {meeting.members} (the last one sends)"
        limit = timedelta(seconds=meeting.seconds)
        try:
            self._store = _store(meeting, rank, limit)
            self._group = _backend(self._store, rank, meeting.members, limit, device)
            self._store.set(_met(rank), "")
        except RuntimeError as error:
            where = f"{meeting.host}:{meeting.port} in {meeting.seconds:.0f} s"
            raise TransferFailed(f"{self._who} did not meet the others at {where}: {error}") from error

    def broadcast(self, flat: torch.Tensor) -> None:
        """From the sender to all. The wait is ours: NCCL's own end of waiting is the end of the process."""
        options = dist.BroadcastOptions()
        options.rootRank = self._meeting.sender
        try:
            work = self._group.broadcast([flat], options)
            deadline = time.monotonic() + self._meeting.seconds
            while not work.is_completed():
                if time.monotonic() > deadline:
                    raise TransferFailed(f"{self._who} waited {self._meeting.seconds:.0f} s for a bucket of weights")
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            work.wait()
        except TransferFailed:
            self._group.abort()
            raise
        except RuntimeError as error:
            raise TransferFailed(f"{self._who}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            if self._rank == 0:
                self._wait_for_the_others()
            self._group.shutdown()

    def _wait_for_the_others(self) -> None:
        """The store ends with rank 0, and another member may still be reading there where it finds the others."""
        try:
            self._store.wait([_met(rank) for rank in range(self._meeting.members)])
        except RuntimeError as error:
            raise TransferFailed(f"{self._who} has all, and not every other one met the others: {error}") from error


def _store(meeting: Meeting, rank: int, limit: timedelta) -> Any:
    """What the members find each other by: rank 0 serves it."""
    host, port, members, _ = meeting
    return dist.TCPStore(host, port, members, is_master=rank == 0, timeout=limit)  # type: ignore[attr-defined]


def _met(rank: int) -> str:
    """The store's key that says that a member has met the others."""
    return f"met/{rank}"


def _backend(store: Any, rank: int, members: int, limit: timedelta, device: torch.device) -> Any:
    """What does the work of a process group, by itself; torch's stubs leave out its collectives."""
    if device.type != "cuda":
        return dist.ProcessGroupGloo(store, rank, members, limit)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = 2 * limit  # of NCCL's watchdog, which ends the process; ours comes first
    return dist.ProcessGroupNCCL(store, rank, members, options)
