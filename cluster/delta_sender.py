"""The learner's end of a transfer by deltas: the values that changed since the last version, losslessly.

With a whole copy (W) every three versions, and the deltas between versions (d):

    version                    1       2       3             4       5
    in the object store        W1      W1 d2   W1 d2 d3      W4 d4   W4 d5
    taken by who holds         -       d2      d3            d4      d5
    the version before
    taken by who joins         W1      W1 d2   W1 d2 d3      W4      W4 d5

**Who keeps the newest weights.** The object store: a whole copy, and the deltas since then. A worker that joins is
served from there. The learner is not asked, which would first have to end its step, and nothing is gathered again. To
compare, rank 0 keeps the newest version in its own memory as well, and the next whole copy is made of that: a copy
within one host, which costs the network nothing, as workers that follow take that version's delta like any other.

**What it costs**, in copies of the weights: one in the memory of rank 0's host. In the object store one, and less than
one of deltas (a whole copy takes their place before they outweigh it); twice that at most while a new whole copy takes
the place of the old. One in the memory of each worker's host (see `cluster.receiver`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import ray
import torch

from cluster.weight_update import Stored, WeightsId, WeightUpdate, pack
from rollout.checksum import checksum_of, digests
from rollout.delta import TensorDelta, difference


class DeltaSender:
    """Implements `cluster.transport.WeightSender`. Owns the whole copy and the deltas; those it replaces are freed."""

    def __init__(self, full_every: int) -> None:
        """A whole copy is made every `full_every` updates, or sooner."""
        self._full_every = full_every
        self._kept: list[Mapping[str, torch.Tensor]] = []  # the newest version, bucket by bucket
        self._whole: Stored | None = None
        self._deltas: list[Stored] = []  # since the whole copy

    def publish(self, version: int, buckets: Iterable[Mapping[str, torch.Tensor]]) -> WeightUpdate:
        """See `cluster.transport.WeightSender`.

        Beyond the copy that is kept, one bucket is held at a time, and the changes of those before it. Raises
        ValueError where `version` is not newer than the last, or where the parameters are others.
        """
        last = self._last
        if last is not None and version <= last.version:
            raise ValueError(f"version {version} is to be published, version {last.version} was already")
        changes, weights = self._compare(version, buckets)
        if last is None:
            return self._renewed(weights, ())
        delta_bytes = sum(change.nbytes for bucket in changes for change in bucket.values())
        if delta_bytes >= self._nbytes:  # as where every value of fp32 weights moved: the whole copy is as cheap
            return self._renewed(weights, ())
        delta = Stored(weights, last, tuple(ray.put(bucket) for bucket in changes if bucket), delta_bytes)
        since_whole = [*self._deltas, delta]
        if len(since_whole) == self._full_every or sum(step.nbytes for step in since_whole) >= self._nbytes:
            return self._renewed(weights, (delta,))
        assert self._whole is not None, "there was a version before"
        self._deltas = since_whole
        return WeightUpdate(self._whole, tuple(since_whole), more_to_come=True)

    @property
    def _last(self) -> WeightsId | None:
        newest = self._deltas[-1] if self._deltas else self._whole
        return None if newest is None else newest.weights

    @property
    def _nbytes(self) -> int:
        return sum(tensor.nbytes for bucket in self._kept for tensor in bucket.values())

    def _compare(
        self, version: int, buckets: Iterable[Mapping[str, torch.Tensor]]
    ) -> tuple[list[dict[str, TensorDelta]], WeightsId]:
        """Keep new weights in place of the old; returns what changed in each bucket."""
        changes: list[dict[str, TensorDelta]] = []
        found: list[bytes] = []
        first = not self._kept
        for index, bucket in enumerate(buckets):
            found += digests(bucket)
            if first:
                self._kept.append(bucket)
                continue
            changes.append(_changes(self._kept[index], bucket))
            self._kept[index] = bucket
        return changes, WeightsId(version, checksum_of(found))

    def _renewed(self, weights: WeightsId, deltas: tuple[Stored, ...]) -> WeightUpdate:
        """Replace the whole copy by the newest version, which `deltas` lead to as well."""
        references = tuple(ray.put(pack(bucket)) for bucket in self._kept)
        self._whole, self._deltas = Stored(weights, None, references, self._nbytes), []
        return WeightUpdate(self._whole, deltas, more_to_come=True)


def _changes(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> dict[str, TensorDelta]:
    if old.keys() != new.keys():
        raise ValueError(f"a bucket of weights has other parameters than before: {sorted(old.keys() ^ new.keys())[:5]}")
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # numpy lets go of the interpreter lock
        found = threads.map(difference, [old[name] for name in new], new.values())
        return {name: change for name, change in zip(new, found, strict=True) if change is not None}
