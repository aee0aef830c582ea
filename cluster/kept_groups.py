"""Groups that a checkpoint keeps for their training: from the object store into a file, and from there back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from cluster.records import GroupRecord, record_of
from learner.file_sums import FileSum, sum_of
from rollout.codec import encode_group
from rollout.rollout_file import RolloutWriter, read_rollouts


def write_groups(file: Path, groups: Sequence[ray.ObjectRef]) -> FileSum:
    """Write encoded groups into a rollout file on the disk, one by one: together they may not fit this process."""
    with RolloutWriter(file) as writer:
        for group in groups:
            writer.append_encoded(ray.get(group))
        writer.sync()
    return sum_of(file)


def read_groups(file: Path) -> list[tuple[GroupRecord, ray.ObjectRef]]:
    """The records of a file's groups, and references to them encoded, which last as long as this process."""
    return [(record_of(group), ray.put(encode_group(group))) for group in read_rollouts(file)]
