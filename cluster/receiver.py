"""A rollout worker's end of a transfer: whole, proven weights for its engine, whatever came over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import torch

from cluster.weight_update import PackedTensor, WeightsId, WeightUpdate, WrongWeights, unpack
from rollout.checksum import checksum
from rollout.delta import TensorDelta, apply
from rollout.engine import Engine


class Receiver:
    """Takes up updates one after the other, in a worker's process.

    Where deltas are to come it keeps the newest weights in the memory of the worker's host, one copy: that is what a
    delta is applied to, and the engine cannot be asked (vLLM packs weights on CPUs, and splits and fuses them
    elsewhere). Otherwise it keeps nothing; tensors are read where they lie in the object store.
    """

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}
        self._held: WeightsId | None = None  # what `_kept` is; None where it is nothing whole
        self._one_at_a_time = asyncio.Lock()

    async def load(self, update: WeightUpdate, engine: Engine) -> str:
        """Give the engine new weights while its requests run; returns the checksum of what was found.

        Weights that are not what was sent never reach the engine: their checksum is returned, they are let go, and the
        same update, given again, is taken whole. Raises WrongWeights where the engine read others than it was given,
        ValueError for a version that is not newer than the one held.
        """
        async with self._one_at_a_time:
            tensors = await self.take(update)
            found = await asyncio.to_thread(checksum, tensors)
            if found != update.checksum:
                self._held = None
                return found
            read = await engine.update_weights(update.version, tensors)
            if read != found:
                raise WrongWeights(
                    f"the engine read weights with checksum {read} as version {update.version}, it was given {found}"
                )
            return read

    async def take(self, update: WeightUpdate) -> Mapping[str, torch.Tensor]:
        """The update's tensors, whole; to be read until the next update is taken, and not to be written to."""
        if self._held is not None and update.version <= self._held.version:
            raise ValueError(f"weight version {update.version} came, version {self._held.version} is held already")
        if not update.more_to_come:
            tensors: dict[str, torch.Tensor] = {}
            for bucket in update.whole.buckets:
                tensors |= unpack(await bucket)
            return tensors
        path = update.path(self._held)
        self._held = None  # until all is there: half a delta makes no version
        if path[0].since is None:
            self._kept = {}
        for stored in path:
            for bucket in stored.buckets:
                await asyncio.to_thread(self._take_up, await bucket)
        self._held = update.weights
        return self._kept

    def _take_up(self, bucket: Mapping[str, PackedTensor | TensorDelta]) -> None:
        for name, part in bucket.items():
            if isinstance(part, PackedTensor):
                self._kept[name] = unpack({name: part})[name].clone()
            else:
                apply(part, self._kept[name])
