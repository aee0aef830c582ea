"""A stage as a job of a real Ray cluster with a token: submitted, stopped, submitted again; and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
TINY = "tests/integration/tiny.yaml"
STEPS = 400  # enough of them for a stop to come in time, few enough to be taken in seconds
PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--ray-client-server-port",
    "--node-manager-port",
    "--object-manager-port",
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Cluster:
    """A cluster of one node, and the environment in which commands reach it."""

    environment: dict[str, str]

    def run(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command, given in the checkout."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def ray_job(self, *words: str) -> str:
        """What `ray job …` says."""
        return self.run("ray.scripts.scripts", "job", *words).stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started as `ray start` does it, on ports and in a folder of its own; ended with all that it started."""
    folder = tmp_path_factory.mktemp("r")
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the jobs' python
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['--dashboard-port']}",
    }
    words = ["start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats", f"--temp-dir={folder}"]
    with (folder / "start.log").open("w") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words, *(f"{name}={port}" for name, port in ports.items())],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        cluster = Cluster(environment)
        try:
            _until(
                lambda: cluster.run("ray.scripts.scripts", "job", "list", check=False).returncode == 0, "the cluster"
            )
            yield cluster
        finally:
            started = psutil.Process(head.pid).children(recursive=True)
            head.send_signal(signal.SIGTERM)  # upon which it ends what it started
            _, alive = psutil.wait_procs([psutil.Process(head.pid), *started], timeout=30)
            for process in alive:
                process.kill()


def test_a_job_that_is_stopped_ends_with_a_checkpoint_and_the_next_one_goes_on_from_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = [f"output={tmp_path}/run", f"data.root={tmp_path}/data", f"stage1.steps={STEPS}"]
    settings += ["stage1.checkpoint_every_steps=1000", "learner.ranks=1", "learner.zero_stage=0", "wandb.mode=offline"]
    stage = RunFolder(tmp_path / "run").stage(1)
    time_to_stop = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}})

    cluster.ray_job(
        *("submit", "--no-wait", "--submission-id=first", "--working-dir=.", f"--runtime-env-json={time_to_stop}"),
        *("--", "python", "-m", "cluster", "sft", TINY, "--stage", "1", *settings),
    )
    _until(lambda: (stage.path / "log.jsonl").exists() and bool((stage.path / "log.jsonl").read_text()), "a step")
    running = cluster.run("cluster", "status", str(tmp_path / "run")).stdout
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


def _until(true: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(number)]
        for probe in sockets:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in sockets]
