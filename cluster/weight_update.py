"""What the learner tells the rollout workers of new weights: where they lie in the object store, and their checksum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import ray
import torch
from numpy.typing import NDArray


class WrongWeights(RuntimeError):
    """A worker read other weights than the learner sent."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensor:
    """A tensor as plain bytes: numpy has no bf16, and the object store hands out numpy without a copy."""

    dtype: str  # torch's name, without "torch."
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class WeightsId:
    """Which weights: a version, and what proves it."""

    version: int
    checksum: str  # of all tensors, by rollout.checksum


@dataclass(frozen=True, slots=True)
class Stored:
    """Weights in the object store: all of them, or what makes them of others."""

    weights: WeightsId
    since: WeightsId | None  # what the delta is to be applied to; None: these are whole
    buckets: tuple[ray.ObjectRef, ...]  # each a dict by parameter name: PackedTensor, in a delta TensorDelta
    nbytes: int  # of the tensors, or of the changes


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """All that any worker needs to come to the newest weights, whichever it holds.

    References keep what lies in the object store alive: whoever lets go of an update frees what no other holds.
    """

    whole: Stored
    deltas: tuple[Stored, ...] = ()  # in order, each since the one before it
    more_to_come: bool = False  # deltas will follow: a worker that keeps its copy can use them

    @property
    def weights(self) -> WeightsId:
        """The newest, which the update is for."""
        return self.deltas[-1].weights if self.deltas else self.whole.weights

    @property
    def version(self) -> int:
        """The newest version."""
        return self.weights.version

    @property
    def checksum(self) -> str:
        """That of the newest version's tensors."""
        return self.weights.checksum

    @property
    def nbytes(self) -> int:
        """Bytes that a worker takes which held the version before."""
        return self.deltas[-1].nbytes if self.deltas else self.whole.nbytes

    def path(self, held: WeightsId | None) -> tuple[Stored, ...]:
        """What to take up, in order, to come from `held` to the newest: deltas that begin there, else the whole."""
        return self._deltas_since(held) or (self.whole, *self._deltas_since(self.whole.weights))

    def _deltas_since(self, held: WeightsId | None) -> tuple[Stored, ...]:
        starts = [delta.since for delta in self.deltas]
        return self.deltas[starts.index(held) :] if held in starts else ()


def pack(tensors: Mapping[str, torch.Tensor]) -> dict[str, PackedTensor]:
    """CPU tensors as bytes."""
    return {
        name: PackedTensor(
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            tensor.detach().contiguous().flatten().view(torch.uint8).numpy(),
        )
        for name, tensor in tensors.items()
    }


def unpack(packed: Mapping[str, PackedTensor]) -> dict[str, torch.Tensor]:
    """The tensors again; they share memory with the bytes and must not be written to."""
    return {
        name: _of_bytes(tensor.data, getattr(torch, tensor.dtype)).view(tensor.shape) for name, tensor in packed.items()
    }


def _of_bytes(data: NDArray[np.uint8], dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(data, dtype=dtype) if data.size else torch.empty(0, dtype=dtype)
