"""What is submitted, and what becomes of the stages: with a client that ends each job as it is told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.cli import _parser, main
from cluster.digests import evaluation_digest, training_digest
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from cluster.submit import Request, submit_pipeline, submit_stage
from configs.load import load_recipe
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
OVERRIDES = ["output=run", "rl.steps=3", "rl.seconds_per_wait=50", "wandb.project=a b"]


class Jobs:
    """A cluster's jobs."""

    def __init__(self, ending: Callable[[JobDetails], dict[str, Any]] = lambda _: {"status": JobStatus.SUCCEEDED}):
        self.submitted: list[JobDetails] = []
        self.followed: list[str | None] = []
        self._ending = ending

    def submit(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str], **_: Any) -> None:
        self.submitted.append(job(submission_id, entrypoint, dict(metadata)))

    def of_run(self, folder: Path) -> list[JobDetails]:
        return [one for one in self.submitted if (one.metadata or {})["output"] == str(folder)]

    def follow(self, job_id: str) -> JobDetails:
        self.followed.append(job_id)
        (number,) = (n for n, one in enumerate(self.submitted) if one.submission_id == job_id)
        ended = self.submitted[number].model_copy(update=self._ending(self.submitted[number]))
        self.submitted[number] = ended
        return ended

    @property
    def stages(self) -> list[str]:
        return [(one.metadata or {})["stage"] for one in self.submitted]


def job(submission_id: str, entrypoint: str, metadata: dict[str, str]) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id=submission_id,
        entrypoint=entrypoint,
        metadata=metadata,
        status=JobStatus.RUNNING,
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe in it."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(f"extends: {DEMO}\nname: my faces\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILE = Path("recipes/mine.yaml")


def recipe() -> Recipe:
    return load_recipe(FILE, OVERRIDES)


def request(stage: int, *, evaluated: bool = False) -> Request:
    return Request.of(FILE, recipe(), stage, OVERRIDES, evaluated=evaluated)


def done(one: JobDetails) -> dict[str, Any]:
    """The ending of a stage that was trained and evaluated."""
    number = int((one.metadata or {})["stage"])
    folder = RunFolder.of(recipe()).stage(number)
    folder.path.mkdir(parents=True)
    folder.finish("training", training_digest(recipe(), number))
    folder.finish("evaluation", evaluation_digest(recipe(), number))
    return {"status": JobStatus.SUCCEEDED}


# What is asked for


@pytest.mark.parametrize(
    "stage, evaluated, command",
    [
        (1, False, ["sft", str(FILE), "--stage", "1"]),
        (2, False, ["sft", str(FILE), "--stage", "2"]),
        (3, False, ["rl", str(FILE)]),
        (2, True, ["pipeline", str(FILE), "--stage", "2"]),
    ],
)
def test_a_job_is_the_command_that_would_do_it_here_with_the_overrides(
    here: Path, stage: int, evaluated: bool, command: list[str]
) -> None:
    words = shlex.split(request(stage, evaluated=evaluated).entrypoint)

    assert words == ["python", "-m", "cluster", *command, "--from", str(here), *OVERRIDES]
    options, rest = _parser().parse_known_args(words[3:])
    assert (options.recipe, options.place, [*options.overrides, *rest]) == (FILE, here, OVERRIDES)


def test_a_job_gets_the_environment_that_is_asked_for_beside_its_own(here: Path) -> None:
    mine = {"env_vars": {"NCCL_DEBUG": "INFO"}, "pip": ["my-scorer"]}

    asked = Request.of(FILE, recipe(), 3, OVERRIDES, evaluated=False, environment=mine).runtime_env

    assert asked == {
        **request(3).runtime_env,
        "pip": ["my-scorer"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "100", "NCCL_DEBUG": "INFO"},
    }


@pytest.mark.parametrize(
    "mine, fault",
    [
        ({"working_dir": "/elsewhere"}, "--runtime-env-json: working_dir: the job gets the folder"),
        ({"env_vars": {"NUMBER": 1}}, "env_vars is {'NUMBER': 1}, expected an object with texts"),
        ({"env_vars": ["NAME=value"]}, "expected an object with texts"),
    ],
)
def test_an_environment_that_is_none_or_brings_another_folder_is_refused(
    here: Path, mine: dict[str, object], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        Request.of(FILE, recipe(), 3, OVERRIDES, evaluated=False, environment=mine)


@pytest.mark.parametrize("words", ["submit {} --runtime-env-json [1]", "pipeline {} --submit --runtime-env-json {{"])
def test_an_environment_that_is_no_json_object_is_refused_by_name(
    here: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    with pytest.raises(SystemExit):
        main(words.format(FILE).split())

    assert "argument --runtime-env-json: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--address=http://there:8265", "--runtime-env-json={}"])
def test_what_is_for_submitted_jobs_is_refused_for_a_pipeline_here(
    here: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["pipeline", str(FILE), option, *OVERRIDES]) == 2

    assert f"{option.partition('=')[0]} is for jobs that are submitted" in capsys.readouterr().err


def test_a_job_can_be_told_by_its_id_and_belongs_to_its_run(here: Path) -> None:
    asked = request(3)

    assert re.fullmatch(r"my-faces-stage3-\d{8}-\d{6}", asked.submission_id)
    assert asked.metadata == {"recipe": str(FILE), "stage": "3", "output": str(here / "run")}


def test_a_job_has_time_for_a_checkpoint_and_is_not_sent_what_the_run_has_written(here: Path) -> None:
    assert request(3).runtime_env == {
        "working_dir": str(here),
        "excludes": ["/run"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "100"},
    }


def test_a_job_with_a_mirror_has_time_for_its_last_copy_too(here: Path) -> None:
    mirrored = load_recipe(FILE, [*OVERRIDES, "mirror.address=s3://bucket/run", "mirror.seconds_for_last_copy=70.5"])

    asked = Request.of(FILE, mirrored, 3, OVERRIDES, evaluated=False).runtime_env

    assert asked["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "171"}


def test_a_recipe_that_the_job_would_not_get_is_refused(here: Path) -> None:
    with pytest.raises(ValueError, match=r"demo\.yaml is not under .*, which is what the job gets: give the command"):
        Request.of(DEMO, recipe(), 1, OVERRIDES, evaluated=False)


# One stage


def test_without_waiting_the_id_is_all_that_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs, asked = Jobs(), request(1)

    assert submit_stage(jobs, asked, wait=False) == 0  # type: ignore[arg-type]

    told = capsys.readouterr()
    assert told.out == f"{asked.submission_id}\n"
    assert f"ray job stop {asked.submission_id}" in told.err
    assert jobs.followed == []


@pytest.mark.parametrize(
    "ending, code, told",
    [
        ({"status": JobStatus.SUCCEEDED}, 0, ""),
        ({"status": JobStatus.FAILED, "driver_exit_code": 2}, 2, "failed: exit code 2"),
        ({"status": JobStatus.FAILED, "message": "no such package"}, 1, "failed: no such package"),
    ],
)
def test_the_jobs_exit_code_is_the_commands(
    here: Path, capsys: pytest.CaptureFixture[str], ending: dict[str, Any], code: int, told: str
) -> None:
    assert submit_stage(Jobs(lambda _: ending), request(1), wait=True) == code  # type: ignore[arg-type]

    assert told in capsys.readouterr().err


def test_a_job_that_was_stopped_has_not_failed(here: Path) -> None:
    jobs = Jobs(lambda _: {"status": JobStatus.STOPPED})

    with pytest.raises(Stopped, match=r"my-faces-stage1-.* was stopped"):
        submit_stage(jobs, request(1), wait=True)  # type: ignore[arg-type]


def test_two_jobs_are_not_sent_into_one_folder(here: Path) -> None:
    jobs = Jobs()
    submit_stage(jobs, request(1), wait=False)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"my-faces-stage1-\S+ works in .*/run already\n.*ray job logs"):
        submit_stage(jobs, request(2), wait=False)  # type: ignore[arg-type]
    assert jobs.stages == ["1"]


# All three


def pipeline(jobs: Jobs) -> int:
    return submit_pipeline(jobs, FILE, recipe(), OVERRIDES)  # type: ignore[arg-type]


def test_each_stage_is_submitted_when_the_one_before_has_ended(here: Path) -> None:
    jobs = Jobs(done)

    assert pipeline(jobs) == 0

    assert jobs.stages == ["1", "2", "3"]
    assert jobs.followed == [one.submission_id for one in jobs.submitted]


def test_a_second_run_submits_what_is_not_finished(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(Jobs(done))
    (here / "run" / "stage2" / "evaluation-done.json").unlink()
    (here / "run" / "stage3" / "training-done.json").write_text('{"digest": "of other settings"}')
    jobs = Jobs(lambda _: {"status": JobStatus.FAILED, "driver_exit_code": 3})

    assert pipeline(jobs) == 3

    assert jobs.stages == ["2"]  # and not the third, whose predecessor failed
    assert "stage 1 is finished\n" in capsys.readouterr().out


@pytest.mark.parametrize("status", [JobStatus.STOPPED, JobStatus.SUCCEEDED])
def test_after_a_stage_that_was_stopped_none_is_submitted(here: Path, status: JobStatus) -> None:
    (here / "run").mkdir()
    jobs = Jobs(lambda _: {"status": status})  # told to stop by Ray, or otherwise: its stage is not finished

    with pytest.raises(Stopped, match="the same command goes on"):
        pipeline(jobs)
    assert jobs.stages == ["1"]


def test_a_stage_whose_job_runs_already_is_followed(here: Path) -> None:
    jobs = Jobs(done)
    submit_stage(jobs, request(1, evaluated=True), wait=False)  # type: ignore[arg-type]

    assert pipeline(jobs) == 0
    assert jobs.stages == ["1", "2", "3"]
    assert len(jobs.followed) == 3


def test_another_job_in_the_runs_folder_is_not_taken_for_the_stages(here: Path) -> None:
    jobs = Jobs(done)
    submit_stage(jobs, request(1), wait=False)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"works in .* already"):
        pipeline(jobs)
