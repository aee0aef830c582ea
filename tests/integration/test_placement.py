"""Learner ranks on cores of their own, in real Ray actors."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
import ray
import torch

from cluster.learner_actors import _CHECKPOINT, _LearnerShell
from cluster.learners import LearnerGroup
from configs.schema import Learner
from learner.policy import Rank

CORES = sorted(os.sched_getaffinity(0))


@ray.remote(concurrency_groups=_CHECKPOINT)
class Shell(_LearnerShell):
    """A rank without a model, which looks around when it starts."""

    def start(self, rank: Rank) -> None:
        self._index = rank.index
        self._seen: list[set[int]] = []
        thread = threading.Thread(target=lambda: self._seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()

    def seen(self) -> tuple[int, set[int], int]:
        return self._index, self._seen[0], torch.get_num_threads()


def start(**settings: Any) -> LearnerGroup:
    settings = {"ranks": 2, "cpus_per_rank": 0.1, **settings}
    return asyncio.run(LearnerGroup.start(Shell, Learner(**settings), (), 300.0))


@pytest.mark.usefixtures("own_ray")
def test_each_rank_is_kept_on_its_cores_from_before_it_starts() -> None:
    first, last = CORES[0], CORES[-1]
    group = start(cores=(str(first), f"{first},{last}"))

    seen = asyncio.run(group.call("seen"))
    group.close()

    assert seen == [(0, {first}, 1), (1, {first, last}, len({first, last}))]


@pytest.mark.usefixtures("own_ray")
def test_a_core_that_is_not_there_ends_the_job_before_a_model_loads() -> None:
    with pytest.raises(ValueError, match=r"learner-1 on node .*: learner\.cores says 99999, .* not among the cores"):
        start(cores=(str(CORES[0]), "99999"))
