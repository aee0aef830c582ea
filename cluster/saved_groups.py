"""The groups that a run's stage 3 sampled, from its rollout files."""

from __future__ import annotations

from pathlib import Path

from rollout.rollout_file import read_rollouts
from rollout.trajectory import Group


def saved_groups(folder: Path) -> list[Group]:
    """In the order of admission, each group as it was last sampled; a file that is being written may be read."""
    groups: dict[int, Group] = {}
    for path in sorted(folder.glob("*.rollouts")):
        for group in read_rollouts(path, strict=False):
            if group.group_id not in groups or group.admitted >= groups[group.group_id].admitted:
                groups[group.group_id] = group
    return [groups[number] for number in sorted(groups)]
