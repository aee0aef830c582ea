"""The Ray actors around learner ranks: thin shells that give each a process and resources."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

import ray
import torch

from cluster.actor_names import NamedActor
from cluster.broadcast_sender import BroadcastSender, Offer
from cluster.cores import keep_on
from cluster.kept_groups import read_groups, write_groups
from cluster.quiet import quiet
from cluster.records import GroupRecord
from cluster.shown_groups import shown_group
from cluster.transport import sender_of
from cluster.weight_update import WeightUpdate
from configs.schema import Learner, Recipe, RewardWeights, Sft
from learner.file_sums import FileSum, found_sums
from learner.policy import Rank
from learner.rank import LearnerRank
from learner.rl import RlRank, RlReport
from learner.sft import SftRank, SftReport
from learner.shards import ShardFiles
from rollout.broadcast import Meeting
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.probe import Probe
from rollout.prompts import Prompt

_CHECKPOINT = {"checkpoint": 1}  # a checkpoint's files are waited for while the rank takes its next step


class _LearnerShell(NamedActor):
    """What both kinds of learner actor share."""

    _rank: LearnerRank
    _files: ShardFiles

    def __init__(self, threads: int | None, on_cpus: bool) -> None:
        """On CPUs with no number of threads: one for each core that this process may use."""
        quiet()
        if threads is None and on_cpus:
            threads = len(os.sched_getaffinity(0))
        if threads is not None:
            torch.set_num_threads(threads)

    def keep_on(self, cores: str, rank: int) -> None:
        """Keep this rank on these cores. Raises ValueError where that cannot be."""
        keep_on(cores, f"learner-{rank}", "learner.cores")

    def address(self) -> str:
        """An address on this node where rank 0 can be met."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
        return f"{ray.util.get_node_ip_address()}:{port}"

    def save_model(self, folder: str) -> None:
        """Write a Hugging Face directory."""
        self._rank.save_model(folder)

    def save_checkpoint(self, folder: str, groups_file: str, groups: Sequence[ray.ObjectRef]) -> None:
        """Have this rank's share of a checkpoint written as it is now, and these encoded groups, by a thread."""
        self._files = self._rank.save_checkpoint(Path(folder))
        if groups:
            path = Path(folder, groups_file)
            self._files.add(path, partial(write_groups, path, groups))

    @ray.method(concurrency_group="checkpoint")
    def checkpoint_files(self) -> dict[str, FileSum]:
        """The files this rank wrote of the checkpoint begun last, by path, once all are on the disk.

        Raises OSError where one of them cannot be written.
        """
        return self._files.written()

    def checkpoint_sums(self, folder: str, names: Sequence[str]) -> dict[str, FileSum | str]:
        """The sums of files in a checkpoint by name; of one that cannot be read why."""
        return found_sums(Path(folder), names)

    def load_checkpoint(self, folder: str, groups_files: Sequence[str]) -> list[tuple[GroupRecord, ray.ObjectRef]]:
        """Go on from a checkpoint; returns the groups of these files."""
        self._rank.load_checkpoint(Path(folder))
        return [group for name in groups_files for group in read_groups(Path(folder, name))]


@ray.remote(concurrency_groups=_CHECKPOINT)
class SftActor(_LearnerShell):
    """One rank of an SFT job."""

    _rank: SftRank

    def start(
        self,
        rank: Rank,
        model_dir: str,
        stage: Sft,
        learner: Learner,
        prompts: Sequence[Prompt],
        limits: ImageLimits,
        seed: int,
    ) -> None:
        """Load the model and meet the other ranks."""
        self._rank = SftRank(rank, model_dir, stage, learner, prompts, limits, seed)

    def train(self, step: int) -> SftReport:
        """Take one step."""
        return self._rank.train(step)

    def evaluate(self) -> float | None:
        """Held-out loss."""
        return self._rank.evaluate()


class _RlShell(_LearnerShell):
    """One rank of the RL learner."""

    _rank: RlRank

    def start(
        self, rank: Rank, model_dir: str, recipe: Recipe, prompts: Mapping[str, Prompt], limits: ImageLimits
    ) -> None:
        """Load the model and meet the other ranks."""
        self._rank = RlRank(rank, model_dir, recipe, prompts, limits)
        self._rewards = recipe.rewards
        self._groups_shown = recipe.monitoring.groups_shown if rank.index == 0 else 0
        self._sender = sender_of(recipe.transfer, recipe.rl.seconds_per_wait)

    def step(
        self,
        minibatches: Sequence[Sequence[ray.ObjectRef]],
        weights: RewardWeights,
        version: int,
        probe: Probe | None,
    ) -> RlReport:
        """Train on this rank's share of each minibatch, from weight version `version` to the next."""
        encoded = [ray.get(list(groups)) for groups in minibatches]
        for group in islice(chain(*encoded), self._groups_shown):
            print(shown_group(decode_group(group), version + 1, weights, self._rewards), flush=True)
        return self._rank.step(encoded, weights, version, probe)

    def publish(self, version: int) -> WeightUpdate | Offer:
        """Make the weights available; only rank 0's update holds any."""
        return self._sender.publish(version, self._rank.weight_buckets())


@ray.remote(concurrency_groups=_CHECKPOINT)
class RlActor(_RlShell):
    """A rank whose weights travel through the object store."""


@ray.remote(concurrency_groups={"transfer": 4, **_CHECKPOINT})
class RlSendingActor(_RlShell):
    """A rank that sends its weights to the engines itself, while it trains."""

    @ray.method(concurrency_group="transfer")
    def send(self, version: int, meeting: Meeting) -> None:
        """Send a version to one engine."""
        assert isinstance(self._sender, BroadcastSender), "it makes the offers"
        self._sender.send(version, meeting)
