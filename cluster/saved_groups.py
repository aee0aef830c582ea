"""The groups that a run's stage 3 sampled, from its rollout files."""

from __future__ import annotations

import logging
from pathlib import Path

from rollout.codec import CodecError
from rollout.rollout_file import read_rollouts
from rollout.trajectory import Group

logger = logging.getLogger(__name__)


def saved_groups(folder: Path) -> list[Group]:
    """In the order of admission, each group as it was last sampled; a file that is being written may be read.

    One that is damaged is read up to there, and the log says where that is.
    """
    groups: dict[int, Group] = {}
    for path in sorted(folder.glob("*.rollouts")):
        try:
            for group in read_rollouts(path, strict=False):
                if group.group_id not in groups or group.admitted >= groups[group.group_id].admitted:
                    groups[group.group_id] = group
        except CodecError as error:
            logger.error("GROUPS ARE LEFT OUT, those of this file from there on: %s", error)
    return [groups[number] for number in sorted(groups)]
