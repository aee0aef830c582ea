"""A stage as a job of a real Ray cluster with a token: submitted, stopped, submitted again; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.job_book import TRAINING, entries
from cluster.run_folder import RunFolder
from tests.integration.ray_nodes import Cluster, started_cluster, until

TINY = "tests/integration/tiny.yaml"
STEPS = 1000  # enough of them for a stop to come in time, few enough to be taken in seconds

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node."""
    with started_cluster(tmp_path_factory.mktemp("r"), nodes=1, cpus=4) as started:
        yield started


def test_a_job_that_is_stopped_ends_with_a_checkpoint_and_the_next_one_goes_on_from_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = [f"output={tmp_path}/run", f"data.root={tmp_path}/data", f"stage1.steps={STEPS}"]
    settings += [
        "stage1.checkpoint_every_steps=1000000",
        "learner.ranks=1",
        "learner.zero_stage=0",
        "wandb.mode=offline",
    ]
    stage = RunFolder(tmp_path / "run").stage(1)
    time_to_stop = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}})

    cluster.ray_job(
        *("submit", "--no-wait", "--submission-id=first", "--working-dir=.", f"--runtime-env-json={time_to_stop}"),
        *("--", "python", "-m", "cluster", "sft", TINY, "--stage", "1", *settings),
    )
    until(lambda: TRAINING in {entry.doing for entry in entries(tmp_path / "run")}, "training")
    running = cluster.run("cluster", "status", str(tmp_path / "run")).stdout
    until(lambda: (stage.path / "log.jsonl").exists() and bool((stage.path / "log.jsonl").read_text()), "a step")
    cluster.ray_job("stop", "first")

    checkpoints = CheckpointFolder(stage.checkpoints, kept=2)
    newest, *others = map(checkpoints.read, checkpoints.newest_first())
    log = cluster.ray_job("logs", "first")
    assert "running: training stage 1" in running
    assert "first: running" in running
    assert others == []
    assert 0 < newest.step < STEPS
    assert f"stage 1 stopped after step {newest.step} of {STEPS}; the same command goes on from there" in log
    assert "Traceback" not in log  # of wandb's service, say, which Ray sends the signal to as well
    assert not stage.model.exists()

    second = cluster.run("cluster", "submit", TINY, "--stage", "1", *settings)

    lines = [json.loads(line) for line in (stage.path / "log.jsonl").read_text().splitlines()]
    assert f"stage 1: {stage.model}" in second.stdout
    assert stage.model.exists()
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})  # no step was taken twice
    assert lines[-1]["step"] == STEPS
    assert f"stage 1: finished, {STEPS} steps" in cluster.run("cluster", "status", str(tmp_path / "run")).stdout


def test_whether_the_cluster_has_room_for_a_recipe_is_told_from_outside_of_it(cluster: Cluster) -> None:
    fits = cluster.run("cluster", "check", TINY, "--cluster").stdout
    lacks = cluster.run("cluster", "check", TINY, "engine.gpus_per_worker=1", "--cluster").stdout

    assert "cluster  1 node: 1 of 4 CPUs\n         has room for stage 3, if other jobs leave it: learner ranks" in fits
    assert "PROBLEM  the cluster has no room for 2 of 2 rollout workers" in lacks


def test_who_has_another_token_is_told_what_to_set(cluster: Cluster, tmp_path: Path) -> None:
    told = cluster.run(
        *("cluster", "submit", TINY, f"output={tmp_path}"), check=False, RAY_AUTH_TOKEN="another-token-0123456789"
    )

    assert told.returncode == 2
    assert "the cluster wants its token" in told.stdout
    assert "RAY_AUTH_TOKEN" in told.stdout
