"""Stage 3 on several raylets with real engines and a real learner, whose processes are killed, hang or lose their node.

Times to recover are printed. While a process comes back the learner is made to stand still, where nothing else is said:
it would be through with its few steps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.chaos.job import (
    ENGINE,
    LEARNER,
    REWARD,
    ROLLOUT,
    STORE_BYTES,
    Job,
    job,
    kill,
    measured,
    processes,
    raylets,
    standing,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

LOST, AGAIN = "is lost and will be replaced", "works again"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raylets(tmp_path_factory.mktemp("r"), nodes=3) as cluster:  # one more than there are engines
        yield cluster


def test_workers_that_are_killed_at_any_time_cost_neither_a_step_nor_a_group(
    cluster: Cluster, tmp_path: Path, tiny_model: Path
) -> None:
    with job(cluster, tmp_path, tiny_model, "rl.steps=20", "reward_service.seconds_per_group=20") as run:
        run.until(lambda: run.step >= 1, "its first step")

        an_engine_dies_while_the_learner_goes_on(run)
        run.until_stepped(1)
        a_worker_dies_in_generation_and_its_successor_as_it_starts(run)
        run.until_stepped(1)
        a_worker_dies_in_an_update(run)
        a_reward_worker_dies(run)
        a_reward_worker_hangs(run)

        run.ends_as_if_nothing_had_happened()
    assert run.lines[-1]["worker_restarts"] == 3
    assert run.lines[-1]["reward_worker_restarts"] == 2


def an_engine_dies_while_the_learner_goes_on(run: Job) -> None:
    engine, *_ = processes(ENGINE)

    kill(engine)

    noticed = run.until_told(LOST)
    run.until_stepped(1)
    assert AGAIN not in run.told
    with standing(LEARNER):
        run.until_told(AGAIN)
    measured("engine process killed", noticed=noticed, replaced=replaced(run)[-1])


def a_worker_dies_in_generation_and_its_successor_as_it_starts(run: Job) -> None:
    before = processes(ROLLOUT)

    kill(before[0])

    noticed = run.until_told(LOST, 2)
    with standing(LEARNER):
        run.until(lambda: set(processes(ROLLOUT)) - set(before), "its successor")
        (successor,) = set(processes(ROLLOUT)) - set(before)
        kill(successor)
        run.until_told("did not start")
        run.until_told(AGAIN, 2)
    measured("rollout worker killed, and its successor at start", noticed=noticed, replaced=replaced(run)[-1])


def a_worker_dies_in_an_update(run: Job) -> None:
    worker, *_ = processes(ROLLOUT)
    worker.suspend()
    run.until_stepped(1)
    stands_still(run)  # new weights wait for the worker, and the learner for them

    kill(worker)

    noticed = run.until_told(LOST, 3)
    went_on = run.until_stepped(1)
    with standing(LEARNER):
        run.until_told(AGAIN, 3)
    measured("rollout worker killed in an update", noticed=noticed, next_step=went_on, replaced=replaced(run)[-1])


def a_reward_worker_dies(run: Job) -> None:
    kill(processes(REWARD)[0])

    noticed = run.until_told(LOST, 4)
    run.until_told(AGAIN, 4)
    measured("reward worker killed", noticed=noticed, replaced=replaced(run)[-1])


def a_reward_worker_hangs(run: Job) -> None:
    worker, *_ = processes(REWARD)

    worker.suspend()

    noticed = run.until_told(LOST, 5)
    run.until_told(AGAIN, 5)
    measured("reward worker hangs (limit 20 s)", noticed=noticed, replaced=replaced(run)[-1])
    run.until(
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the end of the one that hung"
    )


def test_a_node_a_full_object_store_and_a_learner_rank_cost_time_alone(
    cluster: Cluster, tmp_path: Path, tiny_model: Path
) -> None:
    with job(cluster, tmp_path, tiny_model, "rl.steps=16") as run:
        run.until(lambda: run.step >= 1, "its first step")

        a_node_is_lost(run)
        an_object_store_is_filled(run, cluster)
        a_learner_rank_dies(run)

        run.ends_as_if_nothing_had_happened()


def a_node_is_lost(run: Job) -> None:
    raylet = processes(ROLLOUT)[0].parent()
    assert raylet is not None and not processes(LEARNER, raylet)

    kill(raylet)

    noticed = run.until_told(LOST)
    with standing(LEARNER):
        run.until_told(AGAIN)
    went_on = run.until_stepped(1)
    measured("raylet killed", noticed=noticed, replaced=replaced(run)[-1], next_step=went_on)


def an_object_store_is_filled(run: Job, cluster: Cluster) -> None:
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        piece = np.zeros(STORE_BYTES // 10, dtype=np.uint8)
        held = [ray.put(piece) for _ in range(25)]  # two and a half stores full
        seconds = run.until_stepped(2)
        assert len(held) == 25
    finally:
        ray.shutdown()
    measured("object store filled", two_steps=seconds)


def a_learner_rank_dies(run: Job) -> None:
    run.until(lambda: any(run.stage.checkpoints.glob("step-*")), "a checkpoint")
    before, began = len(run.told), time.monotonic()

    kill(processes(LEARNER)[-1])

    noticed = run.until_told("the stage goes on from")
    assert re.search(r"the stage goes on from \S+step-\d+: learner-[01] was lost in `\w+`", run.told[before:])
    run.until_told("resumed at step")
    run.until_stepped(1)
    measured("learner rank killed", noticed=noticed, next_step=time.monotonic() - began)


def replaced(run: Job) -> list[float]:
    """Seconds until each worker that was lost was replaced."""
    return [float(seconds) for seconds in re.findall(rf"{AGAIN}, ([\d.]+) s after it was lost", run.told)]


def stands_still(run: Job) -> None:
    """Wait until the run has taken no step for some seconds."""
    seen, since = run.step, time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        if run.step != seen:
            seen, since = run.step, time.monotonic()
        return time.monotonic() > since + 10

    run.until(still, "standing still")
