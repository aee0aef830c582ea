"""Stage 3 on several raylets with a real engine and real learner ranks, which are killed, hang or lose their node.

Times to recover are printed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import ray
from psutil import NoSuchProcess, Process
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

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

LIMIT = 20  # seconds a reward worker may take for a group
UPDATE_LIMIT = 40  # seconds a rollout worker may take for new weights
SECONDS_STILL, IDLE_SECONDS = 5, 0.3  # an idle process still looks around now and then
LOST, AGAIN = "is lost and will be replaced", "works again"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raylets(tmp_path_factory.mktemp("r"), nodes=2) as cluster:  # one more than there are engines
        yield cluster


def test_workers_that_are_killed_at_any_time_cost_neither_a_step_nor_a_group(
    cluster: Cluster, tmp_path: Path, tiny_model: Path
) -> None:
    limits = (f"reward_service.seconds_per_group={LIMIT}", f"transfer.seconds_per_update={UPDATE_LIMIT}")
    with job(cluster, tmp_path, tiny_model, "rl.steps=75", "learner.ranks=1", *limits) as run:
        run.until(lambda: run.step >= 1, "its first step")

        an_engine_dies(run)
        a_worker_dies_in_generation_and_its_successor_as_it_starts(run)
        a_worker_dies_in_an_update(run)
        a_worker_hangs_in_an_update(run)
        a_reward_worker_dies(run)
        a_reward_worker_hangs(run)

        run.ends_as_if_nothing_had_happened()
    assert run.lines[-1]["worker_restarts"] == 4
    assert run.lines[-1]["reward_worker_restarts"] == 2


def test_one_of_two_engines_dies_and_the_other_goes_on(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    settings = ("rl.steps=40", "learner.ranks=1", "engine.workers=2", "transfer.seconds_per_update=600")
    with job(cluster, tmp_path, tiny_model, *settings) as run:
        run.until(lambda: run.step >= 1, "its first step")
        dead, survivor = processes(ENGINE)

        kill(dead)

        noticed = run.until_told(LOST)
        without_it = run.until_stepped(run.recipe.rl.max_policy_lag + 2)  # more than there were groups for
        assert AGAIN not in run.told
        with standing([survivor]):  # which would else come to the last step while the other one starts
            replaced = run.until_told(AGAIN)
        measured(run, "one of two engines killed", noticed=noticed, steps_without_it=without_it, replaced=replaced)
        run.ends_as_if_nothing_had_happened()
    assert run.lines[-1]["worker_restarts"] == 1


def test_a_node_a_full_object_store_and_a_learner_rank_cost_time_alone(
    cluster: Cluster, tmp_path: Path, tiny_model: Path
) -> None:
    with job(cluster, tmp_path, tiny_model, "rl.steps=40") as run:
        run.until(lambda: run.step >= 1, "its first step")

        a_node_is_lost(run)
        an_object_store_is_filled(run, cluster)
        a_learner_rank_dies(run)

        run.ends_as_if_nothing_had_happened()


def an_engine_dies(run: Job) -> None:
    (engine,) = processes(ENGINE)

    kill(engine)

    measured(run, "engine process killed", noticed=run.until_told(LOST), replaced=run.until_told(AGAIN))


def a_worker_dies_in_generation_and_its_successor_as_it_starts(run: Job) -> None:
    run.until_stepped(1)
    (worker,) = processes(ROLLOUT)

    kill(worker)

    noticed = run.until_told(LOST, 2)
    run.until(lambda: set(processes(ROLLOUT)) - {worker}, "its successor")
    (successor,) = set(processes(ROLLOUT)) - {worker}
    kill(successor)
    run.until_told("did not start")
    replaced = run.until_told(AGAIN, 2)
    measured(run, "rollout worker killed, and its successor at start", noticed=noticed, replaced=replaced)


def a_worker_dies_in_an_update(run: Job) -> None:
    worker = a_worker_stands_still_in_an_update(run)
    run.until(stillness(), "standing still")  # new weights wait for the worker, and the learner for them

    kill(worker)

    noticed, replaced = run.until_told(LOST, 3), run.until_told(AGAIN, 3)
    measured(run, "rollout worker killed in an update", noticed=noticed, replaced=replaced)


def a_worker_hangs_in_an_update(run: Job) -> None:
    worker = a_worker_stands_still_in_an_update(run)

    noticed, replaced = run.until_told(LOST, 4), run.until_told(AGAIN, 4)

    measured(run, f"rollout worker hangs in an update (limit {UPDATE_LIMIT} s)", noticed=noticed, replaced=replaced)
    run.until(lambda: worker not in processes(ROLLOUT), "its end")


def a_worker_stands_still_in_an_update(run: Job) -> Process:
    run.until_stepped(1)
    (worker,) = processes(ROLLOUT)
    groups = run.recipe.rl.prompts_per_step
    with standing(processes(LEARNER)):  # until there is enough to train on without the worker
        run.until(lambda: len(run.scored) >= (run.step + 3) * groups, "three batches ahead")
        worker.suspend()
    run.until_stepped(1)
    return worker


def a_reward_worker_dies(run: Job) -> None:
    run.until_stepped(1)
    (worker,) = processes(REWARD)

    kill(worker)

    measured(run, "reward worker killed", noticed=run.until_told(LOST, 5), replaced=run.until_told(AGAIN, 5))


def a_reward_worker_hangs(run: Job) -> None:
    run.until_stepped(1)
    (worker,) = processes(REWARD)

    worker.suspend()

    noticed, replaced = run.until_told(LOST, 6), run.until_told(AGAIN, 6)
    measured(run, f"reward worker hangs (limit {LIMIT} s)", noticed=noticed, replaced=replaced)
    run.until(lambda: worker not in processes(REWARD), "its end")


def a_node_is_lost(run: Job) -> None:
    (worker,) = processes(ROLLOUT)
    raylet = worker.parent()
    assert raylet is not None and not processes(LEARNER, raylet)

    kill(raylet)

    measured(run, "raylet killed", noticed=run.until_told(LOST), replaced=run.until_told(AGAIN))


def an_object_store_is_filled(run: Job, cluster: Cluster) -> None:
    try:
        with standing(processes(LEARNER)):  # which would else come to the last step before a slow disk has the objects
            ray.init(address=cluster.address, log_to_driver=False)
            piece = np.zeros(STORE_BYTES // 10, dtype=np.uint8)
            held = [ray.put(piece) for _ in range(25)]  # two stores and a half
        measured(run, f"object store filled with {len(held)} tenths of its size", two_steps=run.until_stepped(2))
    finally:
        ray.shutdown()


def a_learner_rank_dies(run: Job) -> None:
    run.until(lambda: any(run.stage.checkpoints.glob("step-*")), "a checkpoint")
    before = len(run.told)

    kill(processes(LEARNER)[-1])

    noticed = run.until_told("the stage goes on from")
    assert re.search(r"the stage goes on from \S+step-\d+: learner-[01] was lost in `\w+`", run.told[before:])
    measured(run, "learner rank killed", noticed=noticed, resumed=run.until_told("resumed at step"))


def stillness() -> Callable[[], bool]:
    """Whether the learner ranks and the engine have computed nothing for some seconds, as a question to ask again."""
    spent, since = computed(), time.monotonic()

    def still() -> bool:
        nonlocal spent, since
        if abs(computed() - spent) > IDLE_SECONDS:  # less where one of them has ended
            spent, since = computed(), time.monotonic()
        return time.monotonic() > since + SECONDS_STILL

    return still


def computed() -> float:
    """Seconds on a core of the learner ranks and engines there are."""
    spent = 0.0
    for process in (*processes(LEARNER), *processes(ENGINE)):
        with suppress(NoSuchProcess):  # it has ended since
            times = process.cpu_times()
            spent += times.user + times.system
    return spent
