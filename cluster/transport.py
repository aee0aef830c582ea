"""Weights through Ray's object store: put once by the learner, read by every worker where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from rollout.checksum import checksum


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensor:
    """A tensor as plain bytes: numpy has no bf16, and the object store hands out numpy without a copy."""

    dtype: str  # torch's name, without "torch."
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """One version of the whole weights. The object store frees them when the last holder is gone."""

    version: int
    buckets: tuple[ray.ObjectRef, ...]  # each a dict of PackedTensor by parameter name
    checksum: str  # of all tensors, by rollout.checksum


def pack(tensors: Mapping[str, torch.Tensor]) -> dict[str, PackedTensor]:
    """CPU tensors as bytes."""
    return {
        name: PackedTensor(
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            tensor.contiguous().flatten().view(torch.uint8).numpy(),
        )
        for name, tensor in tensors.items()
    }


def unpack(packed: Mapping[str, PackedTensor]) -> dict[str, torch.Tensor]:
    """The tensors again; they share memory with the bytes and must not be written to."""
    return {
        name: torch.frombuffer(tensor.data, dtype=getattr(torch, tensor.dtype)).view(tensor.shape)
        for name, tensor in packed.items()
    }


def publish(version: int, buckets: Iterable[Mapping[str, torch.Tensor]]) -> WeightUpdate:
    """Put the buckets into the object store as version `version`."""
    references: list[ray.ObjectRef] = []
    whole: dict[str, torch.Tensor] = {}
    for bucket in buckets:
        references.append(ray.put(pack(bucket)))
        whole.update(bucket)
    return WeightUpdate(version, tuple(references), checksum(whole))


async def fetch(update: WeightUpdate) -> dict[str, torch.Tensor]:
    """The tensors of an update."""
    tensors: dict[str, torch.Tensor] = {}
    for reference in update.buckets:
        tensors.update(unpack(await reference))
    return tensors
