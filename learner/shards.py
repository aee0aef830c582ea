"""How DeepSpeed writes a checkpoint's files: from a copy of the state, while training goes on, each with its sum.

A rank that raised in the middle of DeepSpeed's `save_checkpoint` would leave its peers in a collective, where they wait
for it until their limit and are of no use afterwards. A full disk is no reason for that.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from learner.file_sums import FileSum, write_summed


class ShardFiles(TorchCheckpointEngine):
    """The files of one rank. A thread writes them, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self._stager = BlockingAsyncStager()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._files: dict[str, Future[FileSum]] = {}

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        """Have a file written with what the state is now. Takes as much of the host's memory until that is done."""
        copy = self._stager.stage(state_dict)
        self.add(Path(path), partial(write_summed, Path(path), partial(torch.save, copy)))

    def add(self, path: Path, write: Callable[[], FileSum]) -> None:
        """Have another file written beside them."""
        self._files[str(path)] = self._thread.submit(write)

    def written(self) -> dict[str, FileSum]:
        """The files since the last call with their sums, by path, once all are on the disk.

        Raises the OSError that one of them ended in, when all are through.
        """
        files, self._files = self._files, {}
        wait(files.values())
        return {path: file.result() for path, file in files.items()}


def refuse_other_ranks(folder: Path, zero_stage: int, ranks: int) -> None:
    """Raise ValueError where DeepSpeed, under this ZeRO stage, does not read the shards in `folder` with so many ranks.

    Every rank raises it, before any of them is in a collective.
    """
    wrote = len(list(folder.glob("*optim_states.pt")))  # one of each rank; under ZeRO 0 there are none
    if zero_stage > 0 and wrote != ranks:
        raise ValueError(
            f"{folder} was written by {wrote} learner ranks, and under learner.zero_stage {zero_stage} DeepSpeed reads "
            f"it back with as many alone: got learner.ranks {ranks}, set it to {wrote}"
        )
