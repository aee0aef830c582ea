"""Who has a run's folder, and what it says that it is at."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.job_book import TRAINING, entries, in_use, last_entry, working_in
from cluster.ray_job import losses_ahead
from cluster.stages import connect
from cluster.stopped import Stopped
from configs.load import load_recipe


def doing(folder: Path) -> list[tuple[str, int | None]]:
    return [(entry.doing, entry.stage) for entry in entries(folder)]


def test_a_folder_is_one_jobs_alone_while_it_works_there(tmp_path: Path) -> None:
    with working_in(tmp_path) as book:
        book.now(TRAINING, 2)

        assert in_use(tmp_path)
        with (
            pytest.raises(ValueError, match=f"in use: training stage 2 since .*, process {os.getpid()} on .* stop it"),
            working_in(tmp_path),
        ):
            pass

    assert not in_use(tmp_path)
    with working_in(tmp_path):
        pass


def test_a_job_that_begins_as_its_folder_is_looked_at_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with working_in(tmp_path):
        pass

    with (tmp_path / "jobs.jsonl").open(encoding="utf-8") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)  # as `in_use` does
        # The look ends while the job waits for that.
        clock = {"monotonic": lambda: 0.0, "sleep": lambda _: fcntl.flock(looked_at, fcntl.LOCK_UN)}
        monkeypatch.setattr("cluster.job_book.time", SimpleNamespace(**vars(time) | clock))
        with working_in(tmp_path):
            assert in_use(tmp_path)


@pytest.mark.parametrize(
    "error, told", [(Stopped(""), "stopped"), (KeyboardInterrupt(), "stopped"), (RuntimeError(), "failed")]
)
def test_a_job_says_how_it_ended(tmp_path: Path, error: BaseException, told: str) -> None:
    with pytest.raises(type(error)), working_in(tmp_path) as book:
        book.now(TRAINING, 3)
        raise error

    with working_in(tmp_path):
        pass

    assert doing(tmp_path) == [
        ("preparing", None),
        ("training", 3),
        (told, 3),
        ("preparing", None),
        ("ended", None),
    ]


def test_a_job_that_is_killed_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from cluster.job_book import working_in
with working_in(Path(sys.argv[1])) as book:
    book.now("training", 1)
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)

    assert doing(tmp_path)[-1] == ("training", 1)
    assert not in_use(tmp_path)


def test_a_line_that_is_not_whole_yet_is_left_out(tmp_path: Path) -> None:
    with working_in(tmp_path):
        pass
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write('{"time": 1')

    last = last_entry(tmp_path)

    assert last is not None
    assert last.doing == "ended"


def test_where_no_job_was_nothing_is_told(tmp_path: Path) -> None:
    assert last_entry(tmp_path) is None
    assert not in_use(tmp_path)


def test_a_ray_job_is_named_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "emoji-1"}}))

    with working_in(tmp_path):
        pass

    last = last_entry(tmp_path)
    assert last is not None
    assert last.submission == "emoji-1"
    assert "emoji-1 (process" in str(last)


DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
SHARED = Path("/shared/outputs")
COPY = Path("/tmp/ray/session/runtime_resources/working_dir_files/_ray_pkg_1/outputs")


def test_a_ray_job_is_told_what_it_would_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(DEMO, ["rl.seconds_per_wait=600"])
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    assert list(losses_ahead(COPY, recipe)) == []

    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "emoji-1"}}))
    copy, seconds = losses_ahead(COPY, recipe)
    assert "Ray removes" in copy and "output=/a/folder" in copy
    assert "gives this job 3 s" in seconds and '"RAY_JOB_STOP_WAIT_TIME_S": "1200"' in seconds

    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "1200")
    assert list(losses_ahead(SHARED, recipe)) == []


def test_a_ray_job_is_told_where_it_has_too_little_time_for_its_waits_and_its_mirror(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "emoji-1"}}))
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "1200")
    patient = load_recipe(DEMO, ["rl.seconds_per_wait=600.2"])
    mirrored = load_recipe(DEMO, ["mirror.address=s3://bucket/run", "mirror.seconds_for_last_copy=100"])

    (waits,), (copy,) = losses_ahead(SHARED, patient), losses_ahead(SHARED, mirrored)
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "1301")

    assert "gives this job 1200 s, and its last step and checkpoint may take 1201 s" in waits
    assert "last step and checkpoint, and its last copy to the mirror may take 1300 s" in copy
    assert list(losses_ahead(SHARED, patient)) == list(losses_ahead(SHARED, mirrored)) == []


def test_a_line_that_a_full_disk_cut_off_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with working_in(tmp_path):
        pass
    file = tmp_path / "jobs.jsonl"
    file.write_text(file.read_text()[:-10])

    with working_in(tmp_path):
        pass

    assert doing(tmp_path) == [("preparing", None), ("preparing", None), ("ended", None)]
    assert f"{file}, line 2 is not whole" in caplog.text


def test_variables_that_a_job_was_submitted_with_are_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, dict[str, str]]] = []
    monkeypatch.setattr("ray.init", lambda runtime_env, **_: asked.append(runtime_env))
    config = {"runtime_env": {"env_vars": {"VLLM_LOGGING_LEVEL": "INFO", "OMP_WAIT_POLICY": "ACTIVE"}}}

    connect("emoji")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    connect("emoji")

    alone, submitted = (each["env_vars"] for each in asked)
    assert alone.keys() - submitted.keys() == {"VLLM_LOGGING_LEVEL", "OMP_WAIT_POLICY"}
    assert submitted.items() < alone.items()
