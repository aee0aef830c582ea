"""How weights leave the learner: a sender puts them into Ray's object store once, workers read them where they stand.

What a sender must do is `WeightSender`; `cluster.receiver` has the other end. `cluster.broadcast_sender` goes past the
object store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import ray
import torch

from cluster.broadcast_sender import BroadcastSender, Offer
from cluster.delta_sender import DeltaSender
from cluster.weight_update import Stored, WeightsId, WeightUpdate, pack
from configs.schema import Through, Transfer
from rollout.checksum import checksum_of, digests


class WeightSender(Protocol):
    """One in each learner rank; only rank 0's has buckets with tensors in them."""

    def publish(self, version: int, buckets: Iterable[Mapping[str, torch.Tensor]]) -> WeightUpdate | Offer:
        """Make the weights in `buckets`, which are on the CPU, available as `version`; exhausts the iterable.

        The buckets divide the parameters in the same way at every call, and nobody writes to them afterwards.
        """
        ...


class WholeSender:
    """Every version whole. Keeps nothing: the object store frees a version when the last holder is gone."""

    def publish(self, version: int, buckets: Iterable[Mapping[str, torch.Tensor]]) -> WeightUpdate:
        """See `WeightSender`."""
        references: list[ray.ObjectRef] = []
        found: list[bytes] = []
        nbytes = 0
        for bucket in buckets:
            references.append(ray.put(pack(bucket)))
            found += digests(bucket)
            nbytes += sum(tensor.nbytes for tensor in bucket.values())
        return WeightUpdate(Stored(WeightsId(version, checksum_of(found)), None, tuple(references), nbytes))


def sender_of(transfer: Transfer, seconds_per_wait: float) -> WeightSender:
    """The sender that a recipe asks for."""
    if transfer.through is Through.NCCL:
        return BroadcastSender(min(transfer.seconds_per_update, seconds_per_wait))  # as long as the pool waits
    return DeltaSender(transfer.full_every) if transfer.deltas else WholeSender()
