"""The learner's end of a transfer past the object store: rank 0 sends to every engine that asks, GPU to GPU.

Each engine's processes and rank 0 make a group of their own for one transfer (`rollout.broadcast`), so an engine that
is replaced concerns no other, and one that joins asks like any other. Rank 0 goes on training meanwhile: what it sends
is a copy in its host's memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
import torch
from ray.exceptions import RayError

from cluster.weight_update import WeightsId
from rollout.broadcast import Layout, Meeting, layout_of, send
from rollout.checksum import checksum_of, digests
from rollout.engine import EngineDied

if TYPE_CHECKING:
    from rollout.vllm_engine import VllmEngine

_KEPT = 2  # versions: a worker that is being replaced may still ask for the one before


@dataclass(frozen=True, slots=True)
class Offer:
    """New weights that an engine gets from rank 0 when it asks."""

    weights: WeightsId
    layout: Layout
    nbytes: int  # of the tensors
    source: ray.actor.ActorHandle  # rank 0, whose `send` is to be called
    seconds: float  # limit of a meeting, and of each bucket

    @property
    def version(self) -> int:
        """The version of the weights."""
        return self.weights.version

    @property
    def checksum(self) -> str:
        """That of the weights' tensors."""
        return self.weights.checksum


class BroadcastSender:
    """Implements `cluster.transport.WeightSender`, in an actor with a method `send` that calls this one's."""

    def __init__(self, seconds_per_update: float) -> None:
        # Half of it: the pool, which waits so long for the worker, would else end first and could not name the rank.
        self._seconds = seconds_per_update / 2
        self._kept: dict[int, Sequence[Mapping[str, torch.Tensor]]] = {}  # by version

    def publish(self, version: int, buckets: Iterable[Mapping[str, torch.Tensor]]) -> Offer:
        """See `cluster.transport.WeightSender`."""
        self._kept = dict([*self._kept.items()][1 - _KEPT :])  # before the memory of another one is taken
        held: list[Mapping[str, torch.Tensor]] = []
        found: list[bytes] = []
        for bucket in buckets:
            found += digests(bucket)
            held.append(bucket)
        self._kept[version] = held
        return Offer(
            WeightsId(version, checksum_of(found)),
            layout_of(held),
            sum(tensor.nbytes for bucket in held for tensor in bucket.values()),
            ray.get_runtime_context().current_actor,
            self._seconds,
        )

    def send(self, version: int, meeting: Meeting) -> None:
        """Send a version, this or the last, to the engine that asked. May run in several threads at once.

        Raises KeyError for another version, TransferFailed where the engine does not come.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        send(meeting, self._kept[version], device)


async def take_offer(offer: Offer, engine: VllmEngine) -> str:
    """In a rollout worker: let rank 0 send to the engine while its requests are frozen; returns the checksum it found.

    Raises EngineDied where other weights came than were sent, or not all: they are in the engine already. Where rank 0
    fails it is raised at once, from that error.
    """
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    meeting = Meeting(ray.util.get_node_ip_address(), port, engine.processes + 1, offer.seconds)
    sending = asyncio.ensure_future(offer.source.send.remote(offer.version, meeting))
    receiving = asyncio.create_task(engine.receive_weights(offer.version, meeting, offer.layout))
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_EXCEPTION)
        if sending.done():
            sending.result()
        found = receiving.result()
    except RayError as error:
        receiving.cancel()
        await asyncio.wait((receiving,))  # else its processes would come to their limit, and `close` wait for that
        await engine.close()
        raise EngineDied(f"rank 0 failed in sending version {offer.version}: {error}") from error
    finally:
        for call in (sending, receiving):
            call.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
    if found != offer.checksum:
        await engine.close()
        raise EngineDied(f"weights with checksum {found} came as version {offer.version}, {offer.checksum} were sent")
    return found
