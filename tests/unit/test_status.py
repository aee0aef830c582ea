"""The screen about a run, from folders as jobs leave them."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster import status as module
from cluster.digests import training_digest
from cluster.job_book import SEEDING, TRAINING, working_in
from cluster.job_client import JobClient, Unreachable
from cluster.live_weights import reweight
from cluster.metrics_files import write_metrics
from cluster.run_folder import RunFolder
from cluster.status import status
from configs.load import load_recipe, write_resolved
from configs.schema import Recipe
from rewards.metrics import Metrics

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
WEIGHTS = {"weight/correctness": 1.0, "weight/calibration": 1.0, "weight/format": 4.0}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(address: str | None) -> JobClient:
        raise Unreachable("nobody answers\nand more")

    monkeypatch.setattr(JobClient, "connected", connected)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The recipe of a run that has begun."""
    recipe = load_recipe(
        DEMO, [f"output={tmp_path}/run", "stage1.steps=60", "stage2.steps=50", "rl.steps=40", "rewards.preset=default"]
    )
    write_resolved(recipe, RunFolder.of(recipe).recipe)
    return recipe


def trained(recipe: Recipe, number: int, *lines: dict[str, Any], finished: bool = False) -> RunFolder:
    run = RunFolder.of(recipe)
    stage = run.stage(number)
    stage.claim(training_digest(recipe, number))
    (stage.path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        stage.finish("training", training_digest(recipe, number))
    return run


def about(run: RunFolder, start: str) -> str:
    """The screen's line that begins with this, and what is set in below it."""
    (found,) = re.findall(rf"^{start}.*(?:\n  .*)*", status(run, None), re.MULTILINE)
    return str(found)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run's folder"):
        status(RunFolder(tmp_path), None)


def test_stages_are_finished_stopped_or_not_begun(recipe: Recipe) -> None:
    trained(recipe, 1, {"step": 60, "loss": 0.2}, finished=True)
    run = trained(recipe, 2, {"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.4, "evaluation_loss": None})
    for step in (10, 20):
        (run.stage(2).checkpoints / f"step-{step:06d}").mkdir(parents=True)

    assert about(run, "stage 1").startswith("stage 1: finished, 60 steps\n")
    assert re.fullmatch(
        r"stage 2: stopped at step 20 of 50; checkpoints at 10, 20\n  last line \d+ s ago: loss 0.4000",
        about(run, "stage 2"),
    )
    assert about(run, "stage 3").startswith("stage 3: not begun\n")


def test_a_job_that_works_there_is_told_from_one_that_was_killed(recipe: Recipe) -> None:
    run = trained(recipe, 1, {"step": 7, "loss": 0.2})

    with working_in(run.path) as book:
        book.now(TRAINING, 1)
        running, job = about(run, "stage 1"), about(run, "running")
    (run.path / "jobs.jsonl").write_text(
        (run.path / "jobs.jsonl").read_text().rsplit("\n", 2)[0] + "\n"
    )  # no word of it

    assert running.startswith("stage 1: running at step 7 of 60")
    assert f"training stage 1 since {time.strftime('%d %b')}" in job
    assert f"process {os.getpid()} on" in job
    assert about(run, "stage 1").startswith("stage 1: stopped at step 7 of 60")
    assert about(run, "last job").startswith("last job: training stage 1")


def test_what_a_stage_does_before_it_trains_is_told(recipe: Recipe) -> None:
    run = trained(recipe, 2)

    with working_in(run.path) as book:
        book.now(SEEDING, 2)

        assert about(run, "running").startswith("running: seeding confidences for stage 2")
        assert about(run, "stage 1") == "stage 1: not begun"
        assert about(run, "stage 2") == "stage 2: running"


def test_a_stage_of_other_settings_is_not_called_finished(recipe: Recipe) -> None:
    run = trained(recipe, 1, {"step": 60, "loss": 0.2}, finished=True)
    write_resolved(load_recipe(run.recipe, ["stage1.steps=70"]), run.recipe)

    assert about(run, "stage 1").startswith("stage 1: finished, from other settings")


def test_a_line_that_is_being_written_is_left_for_later(recipe: Recipe) -> None:
    run = trained(recipe, 3, {"step": 3, "reward": 0.5, **WEIGHTS})
    with (run.stage(3).path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')

    assert about(run, "stage 3").startswith("stage 3: stopped at step 3 of 40\n")
    assert "reward 0.500" in about(run, "stage 3")


def test_the_reward_mix_is_that_of_the_last_step_and_of_the_next(recipe: Recipe) -> None:
    run = RunFolder.of(recipe)
    assert "reward mix: correctness 1, calibration 1, format 4" in about(run, "stage 3")

    trained(recipe, 3, {"step": 3, "reward": 0.5, **WEIGHTS, "weight/calibration": 0.75})
    reweight(run, ["calibration=0.5"])

    told = " ".join(about(run, "stage 3").split())
    assert (
        "mix: correctness 1, calibration 0.75, format 4; from the next step on: correctness 1, calibration 0.5" in told
    )


def test_evaluations_that_there_are_have_a_row_each(recipe: Recipe) -> None:
    run = trained(recipe, 1, finished=True)
    folder = run.stage(1).evaluation("unseen")
    folder.mkdir(parents=True)
    write_metrics(
        folder / "metrics.json", {"overall": Metrics(n=4, n_confident=4, n_counted=0, accuracy=0.75, brier=0.125)}
    )

    (row,) = [line for line in status(run, None).splitlines() if line.strip().startswith("unseen")]
    assert row.split() == ["unseen,", "stage", "1", "0.750", "0.125", "-"]


def test_without_a_cluster_the_folder_is_told_all_the_same(recipe: Recipe) -> None:
    assert about(RunFolder.of(recipe), "jobs") == "jobs: nobody answers"


def test_a_runs_jobs_are_listed_and_those_that_run_can_be_stopped(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        SimpleNamespace(submission_id="emoji-1", status=JobStatus.FAILED, start_time=0),
        SimpleNamespace(submission_id="emoji-2", status=JobStatus.RUNNING, start_time=0),
    ]
    client = SimpleNamespace(of_run=lambda folder: jobs, get_address=lambda: "http://head:8265")
    monkeypatch.setattr(module.JobClient, "connected", lambda address: client)

    told = about(RunFolder.of(recipe), "jobs")

    assert told.startswith("jobs of http://head:8265: \n  emoji-1: failed, submitted ")
    assert "\n  emoji-2: running, submitted " in told
    assert "ray job stop emoji-2" in told and "ray job stop emoji-1" not in told
