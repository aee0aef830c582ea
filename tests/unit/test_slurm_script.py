"""cluster/deploy/slurm.sh with Slurm and Ray replaced by recorders; tests/integration has it with the real Ray."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from ray.dashboard.modules.job.cli import stop, submit
from ray.scripts.scripts import start

SCRIPT = Path(__file__).parents[2] / "cluster" / "deploy" / "slurm.sh"
# One write a call: several of them run at once.
RECORDER = """#!/bin/bash
printf -v call '%q ' "$(basename "$0")" "$@"
printf '%s\\n' "$call" >>"$RECORD/calls"
"""
SRUN = """while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
# `start` and `submit` last until they are told to end. A job that was stopped ended well.
RAY = """case "$1 ${2-}" in
"start "*) trap 'exit 0' TERM; touch "$RECORD/started"; while sleep 0.05; do :; done ;;
"health-check "*) until [[ -f $RECORD/started ]]; do sleep 0.05; done ;;
"job submit") cat "$RAY_AUTH_TOKEN_PATH" >"$RECORD/token"; stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$RECORD/mode"
    [[ -n ${JOB_STATUS-} ]] && exit "$JOB_STATUS"
    touch "$RECORD/submitted"
    until [[ -f $RECORD/stopped ]]; do sleep 0.05; done ;;
"job stop") touch "$RECORD/stopped" ;;
esac
"""

Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Starts the script as Slurm would, on the nodes given."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, code in {"srun": SRUN, "ray": RAY, "scontrol": 'printf "%s\\n" $NODES\n'}.items():
        (tools / name).write_text(RECORDER + code)
        (tools / name).chmod(0o755)

    def run(*arguments: str, nodes: Sequence[str] = ("n1", "n2", "n3"), **variables: str) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "RECORD": str(tmp_path),
            "NODES": " ".join(nodes),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_CPUS_PER_TASK": "64",
        }
        return subprocess.Popen(["bash", SCRIPT, *arguments], env=environment | variables, cwd=tmp_path)

    return run


def calls(folder: Path, *words: str) -> list[list[str]]:
    """What was called that starts with these words, without them."""
    lines = [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    return [line[len(words) :] for line in lines if line[: len(words)] == list(words)]


def finish(process: subprocess.Popen[bytes], folder: Path, starts: int = 2) -> int:
    """Tell the script to stop once Ray was started as often as it is to be, and its job runs; its exit code."""

    def waits() -> bool:
        """For its job: before that it has no handler for the signal, and does not sleep."""
        submitted = (folder / "submitted").exists() and len(calls(folder, "ray", "start")) == starts
        return submitted and psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING

    give_up = time.monotonic() + 60
    while not waits():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def test_the_head_starts_first_then_the_others_then_the_job(run: Run, tmp_path: Path) -> None:
    assert finish(run("my recipe.yaml", "rl.steps=5"), tmp_path) == 0

    head, workers = calls(tmp_path, "srun")
    order = [" ".join(line) for line in calls(tmp_path)]
    answered = order.index("ray health-check --address n1:6379")
    assert answered < order.index(" ".join(["srun", *workers]))
    asked = order.index("ray job list --address http://127.0.0.1:8265")  # the dashboard, up later than the head
    assert answered < asked < next(place for place, call in enumerate(order) if call.startswith("ray job submit"))
    assert "--nodelist=n1" in head
    assert {"--nodes=2", "--exclude=n1"} <= set(workers)
    assert all("--cpus-per-task=64" in step for step in (head, workers))
    (job,) = calls(tmp_path, "ray", "job", "submit")
    assert job[-2:] == ["my recipe.yaml", "rl.steps=5"]


def test_what_ray_is_called_with_are_options_of_it(run: Run, tmp_path: Path) -> None:
    finish(run("recipe.yaml"), tmp_path)

    head, worker = (start.make_context("start", words).params for words in calls(tmp_path, "ray", "start"))
    assert (head["head"], head["block"], head["dashboard_host"]) == (True, True, "127.0.0.1")
    assert (worker["head"], worker["block"], worker["address"]) == (False, True, "n1:6379")
    (job,) = (submit.make_context("submit", words).params for words in calls(tmp_path, "ray", "job", "submit"))
    assert job["runtime_env_json"] == '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "1200"}}'
    (stopped,) = (stop.make_context("stop", words).params for words in calls(tmp_path, "ray", "job", "stop"))
    assert stopped["job_id"] == job["submission_id"]


def test_one_node_has_no_workers_to_start(run: Run, tmp_path: Path) -> None:
    assert finish(run("recipe.yaml", nodes=["n1"]), tmp_path, starts=1) == 0

    assert len(calls(tmp_path, "srun")) == 1


def test_a_job_that_fails_fails_the_script(run: Run) -> None:
    assert run("recipe.yaml", JOB_STATUS="3").wait(60) == 3


def test_without_a_recipe_it_says_how_it_is_called(run: Run, tmp_path: Path) -> None:
    assert run().wait(60) == 2
    assert not (tmp_path / "calls").exists()


def test_the_token_is_its_owner_s_alone_on_no_command_line_and_gone_in_the_end(run: Run, tmp_path: Path) -> None:
    finish(run("recipe.yaml"), tmp_path)

    token = (tmp_path / "token").read_text().strip()
    assert len(token) == 64
    assert stat.S_IMODE(int((tmp_path / "mode").read_text(), 8)) == 0o600
    assert token not in (tmp_path / "calls").read_text()
    assert list((tmp_path / ".ray").iterdir()) == []


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "shellcheck is missing: install the extra dev"

    told = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)

    assert told.stdout == ""
