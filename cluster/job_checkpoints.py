"""The checkpoints of a job: each learner rank writes and reads its share of the large files, this process the rest.

Encoded groups that were not trained on yet go into a checkpoint too. Ranks write them, who are about to read them from
the object store in any case; here are references alone.

Ranks copy what they are to write and go on with the next step while a thread of theirs writes it. A checkpoint counts
once all files are on the disk; until then the one before it is the newest.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayError

from cluster.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from cluster.learners import LearnerGroup
from cluster.records import GroupRecord
from cluster.waiting import WaitedTooLong
from learner.file_sums import FileSum

logger = logging.getLogger(__name__)

_GROUPS = ".rollouts"  # how the files of groups end


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a job goes on from; its ranks hold their share already."""

    step: int  # steps taken
    state: Mapping[str, Any]
    groups: Sequence[tuple[GroupRecord, ray.ObjectRef]]


class JobCheckpoints:
    """Checkpoints of these ranks in this folder."""

    def __init__(self, folder: CheckpointFolder, learners: LearnerGroup) -> None:
        self.failed = 0  # checkpoints that could not be written, since the job started
        self._folder = folder
        self._learners = learners
        self._on_disk: int | None = None  # the step of the newest good one
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for what is being written. Where that fails, it is told: the job ends for a reason of its own."""
        try:
            await self.written()
        except (CheckpointError, WaitedTooLong, RayError) as error:
            logger.error("the checkpoint begun last is not whole: %s", error)

    async def save(
        self, step: int, state: Mapping[str, Any], groups: Sequence[ray.ObjectRef] = (), *, last: bool = False
    ) -> None:
        """Begin a checkpoint, unless there is a good one of this step. The last one is waited for.

        Where the disk does not take it, the run goes on; but the last one raises OSError. What else went wrong with
        one is raised by whoever waits for it: the next `save`, or `written`.
        """
        await self.written()
        if step == self._on_disk:
            return
        with self._or_without(step, must=last):
            aside, ranks = self._folder.begin(step), self._learners.size
            shares = [(str(aside), f"groups-{rank}{_GROUPS}", groups[rank::ranks]) for rank in range(ranks)]
            await self._learners.call_each("save_checkpoint", shares)
            self._writing = asyncio.create_task(self._end(step, aside, copy.deepcopy(dict(state)), must=last))
        if last:
            await self.written()

    async def written(self) -> None:
        """Wait until the checkpoint that was begun last is whole, or given up."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def restore(self) -> Resumed | None:
        """Let the ranks take up the newest checkpoint that is as it was written; None where there is none at all.

        Raises CheckpointError where there are some and none is good.
        """
        bad = []
        for folder in self._folder.newest_first():
            try:
                checkpoint = self._folder.read(folder)
                checkpoint.refuse_others(await self._sums(checkpoint))
            except CheckpointError as error:
                logger.error("CHECKPOINT PASSED OVER: %s is not what was written: %s", folder, error)
                self._folder.pass_over(folder)
                bad.append(f"{folder.name}: {error}")
            else:
                return await self._take_up(checkpoint)
        if bad:
            raise CheckpointError(
                f"no checkpoint in {self._folder.path} is what was written, and the stage does not start anew by "
                "itself: bring the files back, or move the stage's folder away (stage 3: --fresh --force). "
                + "; ".join(bad)
            )
        return None

    async def _end(self, step: int, aside: Path, state: Mapping[str, Any], *, must: bool) -> None:
        with self._or_without(step, must=must):
            written: list[dict[str, FileSum]] = await self._learners.call("checkpoint_files")
            sums = {str(Path(path).relative_to(aside)): found for of_rank in written for path, found in of_rank.items()}
            self._folder.commit(step, state, sums)
            self._on_disk = step

    @contextmanager
    def _or_without(self, step: int, *, must: bool) -> Iterator[None]:
        """Where the disk does not take a checkpoint, remove what there is of it and go on, unless it must be there."""
        try:
            yield
        except OSError as error:
            self.failed += 1
            self._folder.give_up(step)
            if must:
                raise
            logger.error(
                "NO CHECKPOINT of step %d (%d have failed): %s. Those before it are as they were; the next is tried "
                "after the usual steps. See to the disk under %s",
                step,
                self.failed,
                error,
                self._folder.path,
            )

    async def _sums(self, checkpoint: Checkpoint) -> dict[str, FileSum | str]:
        """What the files of a checkpoint are now; every rank reads its share."""
        names, ranks = list(checkpoint.manifest), self._learners.size
        shares = [(str(checkpoint.folder), names[rank::ranks]) for rank in range(ranks)]
        found: list[dict[str, FileSum | str]] = await self._learners.call_each("checkpoint_sums", shares)
        return dict(chain.from_iterable(of_rank.items() for of_rank in found))

    async def _take_up(self, checkpoint: Checkpoint) -> Resumed:
        names, ranks = [name for name in checkpoint.manifest if name.endswith(_GROUPS)], self._learners.size
        shares = [(str(checkpoint.folder), names[rank::ranks]) for rank in range(ranks)]
        found: list[list[tuple[GroupRecord, ray.ObjectRef]]] = await self._learners.call_each("load_checkpoint", shares)
        self._on_disk = checkpoint.step
        return Resumed(checkpoint.step, checkpoint.state, list(chain.from_iterable(found)))
