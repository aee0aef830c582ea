"""What every learner rank can do, whatever it trains with."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.policy import Policy, Rank, join
from learner.shards import ShardFiles
from rollout.chat import ChatFormat, ImageLimits


class LearnerRank:
    """A process among its peers, with a share of the model. All ranks call the same methods in the same order."""

    _policy: Policy

    def __init__(self, rank: Rank, model_dir: str, limits: ImageLimits, seed: int) -> None:
        join(rank)
        torch.manual_seed(seed)
        self._rank = rank
        self._chat = ChatFormat(model_dir, limits)

    def save_model(self, folder: str) -> None:
        """Write a whole Hugging Face directory."""
        self._policy.save_model(Path(folder))
        if self._rank.index == 0:
            self._chat.save(Path(folder))

    def save_checkpoint(self, folder: Path) -> ShardFiles:
        """Have weights, optimizer and schedule written as they are now; returns this rank's files.

        There is no random state to keep: what a step trains on is a function of its number or given to it, and models
        are loaded without their dropout.
        """
        return self._policy.save_checkpoint(folder)

    def load_checkpoint(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        self._policy.load_checkpoint(folder)
