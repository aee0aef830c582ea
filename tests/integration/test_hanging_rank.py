"""A learner rank that does not come to a collective of DeepSpeed's, in real Ray actors over gloo, without a model."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
import ray
import torch
import torch.distributed as dist
from deepspeed.utils import groups

from cluster.learner_actors import _CHECKPOINT, _LearnerShell
from cluster.learners import LearnerGroup
from cluster.waiting import WaitedTooLong
from configs.schema import Learner
from learner.policy import Rank, join

pytestmark = pytest.mark.integration

SECONDS_PER_COLLECTIVE = 10.0


@ray.remote(concurrency_groups=_CHECKPOINT)
class Shell(_LearnerShell):
    """A rank without a model."""

    def start(self, rank: Rank) -> None:
        self._place = replace(rank, seconds_per_collective=SECONDS_PER_COLLECTIVE)

    def meet(self) -> None:
        join(self._place)

    def reduce(self, hanging: int | None) -> float:
        if self._place.index == hanging:
            threading.Event().wait()
        ones = torch.ones(1)
        dist.all_reduce(ones, group=groups._get_data_parallel_group())
        return float(ones)


@pytest.mark.usefixtures("own_ray")
def test_the_rank_that_its_peers_wait_for_is_named_long_before_the_wait_for_all_ends() -> None:
    async def job() -> None:
        group = await LearnerGroup.start(Shell, Learner(ranks=2, cpus_per_rank=0.1), (), 240.0)
        try:
            await group.call("meet")
            assert await group.call("reduce", None) == [2.0, 2.0]
            with pytest.raises(WaitedTooLong, match=r"learner-0 waited in `reduce` for learner-1: .* Timed out"):
                await group.call("reduce", 1)
        finally:
            group.close()

    asyncio.run(job())
