"""Stage 3 on several raylets whose disk is full, whose driver is killed and its files damaged, whose judge and Weights
& Biases fail, whose clock is set, and which gets a node more and loses it.

Times to recover are printed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.job import (
    ENGINE,
    Cluster,
    Job,
    fine_tuned,
    job,
    kill,
    measured,
    one_raylet_more,
    processes,
    raylets,
    standing,
)
from tests.integration.test_faulty_judge import FAULTS, SECONDS_PER_REQUEST, FaultyJudge, served
from tests.integration.test_killed_job import is_open

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

DISK_BYTES = 64 * 2**20
QUESTIONS = 32  # that a judge gets wrong of each fault
AHEAD = {"three days ahead": 3 * 86400, "a year behind": -365 * 86400, "right again": 0}  # that clocks are set, seconds
# Imported by every Python process as it starts: Ray's, the workers', the engines'.
CLOCK_THAT_IS_SET = """
import os, time
def ahead(real=time.time_ns):
    with open(os.environ["CLOCK_AHEAD"]) as file:
        return real() + int(file.read()) * 10**9
time.time_ns = ahead
time.time = lambda: ahead() / 1e9
"""


class Judge(FaultyJudge):
    """One whose fault, if any, is set from outside."""

    now: str | None = None

    def fault(self) -> str | None:
        with self._counting:
            self.questions += 1
        return self.now


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one, where a job of this folder writes its run."""
    folder = tmp_path / "out"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk of its own can be mounted by root alone: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_and_a_killed_driver_whose_files_are_damaged_cost_time_alone(
    tmp_path_factory: pytest.TempPathFactory, disk: Path, tmp_path: Path, tiny_model: Path
) -> None:
    with (
        raylets(tmp_path_factory.mktemp("r"), nodes=2) as cluster,
        job(cluster, tmp_path, tiny_model, "rl.steps=80", "learner.ranks=1") as run,
    ):
        run.until(lambda: run.checkpoints, "a checkpoint")

        the_disk_is_full(run, disk)
        the_driver_is_killed_and_its_files_are_damaged(run)

        run.ends_as_if_nothing_had_happened()


def test_a_faulty_judge_a_node_more_and_less_and_no_weights_and_biases_cost_neither_a_step_nor_a_group(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    judge = Judge()
    with raylets(tmp_path_factory.mktemp("r"), nodes=1) as cluster, served(judge) as port:
        model = fine_tuned(cluster, tmp_path)
        settings = (
            *("rl.steps=150", "rl.optimizer.learning_rate=1e-6", "learner.ranks=1", "engine.workers_at_most=2"),
            *("transfer.seconds_per_update=600", "wandb.mode=online", "rewards.correctness=judge"),
            f"rewards.judge={{url: 'http://127.0.0.1:{port}', seconds_per_request: {SECONDS_PER_REQUEST}, "
            "attempts: 1, failures_before_pause: 6, pause_seconds: 0.1, cached_verdicts: 1}",
        )
        with job(cluster, tmp_path, model, *settings, environment=wandb_unreachable(tmp_path)) as run:
            run.until(lambda: run.step >= 1, "its first step")

            a_judge_fails_in_every_way(run, judge)
            a_node_comes_and_goes(run, cluster)

            ledger = run.ends_as_if_nothing_had_happened()
    reasons = {reason for _, _, reason in ledger["dropped"]}
    assert {"scoring_failed"} <= reasons <= {"scoring_failed", "lost"}  # lost with the node, before they were scored
    assert run.lines[-1]["unscored/JudgeError"] > 0
    assert "WEIGHTS & BIASES CANNOT BE REACHED" in run.told
    assert list((run.stage.path / "wandb").glob("offline-run-*/*.wandb"))


def test_clocks_that_are_set_on_every_node_are_not_noticed(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, code = tmp_path / "clock", tmp_path / "code"
    clock.write_text("0")
    code.mkdir()
    (code / "sitecustomize.py").write_text(CLOCK_THAT_IS_SET)
    monkeypatch.setenv("PYTHONPATH", str(code), prepend=":")
    monkeypatch.setenv("CLOCK_AHEAD", str(clock))
    with (
        raylets(tmp_path_factory.mktemp("r"), nodes=2) as cluster,
        job(cluster, tmp_path, tiny_model, "rl.steps=40", "learner.ranks=1") as run,
    ):
        run.until(lambda: run.step >= 1, "its first step")

        for how, seconds in AHEAD.items():
            (tmp_path / "set").write_text(str(seconds))
            (tmp_path / "set").replace(clock)
            measured(run, f"clocks set {how}", four_steps=run.until_stepped(4))

        run.ends_as_if_nothing_had_happened()
    admitted = [group.admitted for group in run.scored]
    assert max(admitted) - min(admitted) > 365 * 86400
    assert run.lines[-1]["worker_restarts"] == 0
    assert all(0 <= line["step_seconds"] < 3600 for line in run.lines)


def the_disk_is_full(run: Job, disk: Path) -> None:
    before = run.checkpoints[0]
    with filled(disk):
        no_checkpoint, no_group = run.until_told("NO CHECKPOINT of step"), run.until_told("IS NOT WRITTEN to")
        no_line = run.until_told("of the log wait for the disk to take them")

    again = run.until(lambda: before not in run.checkpoints, "two checkpoints more")
    measured(run, "disk full", noticed=no_checkpoint + no_group + no_line, checkpoints_again=again)
    assert run.lines[-1]["checkpoints_failed"] >= 1
    assert run.lines[-1]["groups_unwritten"] >= 1


def the_driver_is_killed_and_its_files_are_damaged(run: Job) -> None:
    kill(run.process)
    run.process.wait()
    for file in run.stage.rollouts.iterdir():
        while is_open(file):  # its processes end after it
            time.sleep(0.1)
    rollouts = max(run.stage.rollouts.glob("*.rollouts"), key=lambda file: file.stat().st_size)
    os.truncate(rollouts, rollouts.stat().st_size - 1)
    newest, older = run.checkpoints[:2]
    damaged = max((file for file in newest.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    with damaged.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    steps = run.step

    run.start()

    noticed, resumed = run.until_told("CHECKPOINT PASSED OVER"), run.until_told("resumed at step")
    assert f"CHECKPOINT PASSED OVER: {newest}" in run.told
    assert f"resumed at step {int(older.name.removeprefix('step-'))}:" in run.told
    again = run.until(lambda: run.step > steps, "a new step")
    measured(run, "driver killed, newest checkpoint damaged", noticed=noticed, resumed=resumed, where_it_was=again)


def a_judge_fails_in_every_way(run: Job, judge: Judge) -> None:
    for fault in FAULTS:
        asked = judge.questions
        judge.now = fault
        seconds = run.until(lambda asked=asked: judge.questions >= asked + QUESTIONS, f"{QUESTIONS} questions")  # type: ignore[misc]
        judge.now = None
        measured(run, f"judge is {fault}", questions=seconds)
    run.until(lambda: run.lines[-1]["dropped/scoring_failed"] > 0, "groups that it cost")
    assert run.lines[-1]["dropped/lost"] == 0


def a_node_comes_and_goes(run: Job, cluster: Cluster) -> None:
    workers, engines = {group.worker for group in run.scored}, processes(ENGINE)
    with one_raylet_more(cluster):
        with standing(engines):  # which would else come to the last step while the new one starts
            joined = run.until_told("has joined")
        used = run.until(lambda: {group.worker for group in run.scored} - workers, "a group of a new worker")
        measured(run, "node added", its_engine_joins=joined, its_first_group=used)
    noticed = run.until_told("is lost and will be replaced")
    measured(run, "node added before is killed", noticed=noticed)


def wandb_unreachable(folder: Path) -> dict[str, str]:
    """The environment of a job with a key for a server that is not there."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    return {
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_INIT_TIMEOUT": "20",
        **{f"WANDB_{name}_DIR": str(folder / "elsewhere") for name in ("CONFIG", "CACHE", "DATA")},
    }


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Without room for a byte more, within the block: what a checkpoint that is given up leaves free is taken too."""
    filler, over = disk / "filler", threading.Event()

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            while not over.wait(0.01):
                with suppress(OSError):
                    while True:
                        file.write(bytes(4096))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        filler.unlink()
