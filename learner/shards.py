"""How DeepSpeed writes a checkpoint's files: each summed and on the disk, or its failure kept until all are through.

A rank that raised in the middle of DeepSpeed's `save_checkpoint` would leave its peers in a collective, where they wait
for it until their limit and are of no use afterwards. A full disk is no reason for that.
"""

from __future__ import annotations

from pathlib import Path

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from learner.file_sums import FileSum, write_summed


class ShardFiles(TorchCheckpointEngine):
    """The files of one rank."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, FileSum] = {}
        self._failure: OSError | None = None

    def save(self, state_dict: object, path: str) -> None:
        """Write a file, or remember why not."""
        try:
            self._sums[path] = write_summed(Path(path), lambda file: torch.save(state_dict, file))
        except OSError as error:
            self._failure = error

    def written(self) -> dict[str, FileSum]:
        """The files since the last call with their sums, by path. Raises the OSError that one of them ended in."""
        sums, failure = self._sums, self._failure
        self._sums, self._failure = {}, None
        if failure is not None:
            raise failure
        return sums


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
