"""Stages as Ray jobs: what is submitted, one stage, or all three one after the other."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ray.job_submission import JobDetails, JobStatus

from cluster.digests import STAGES, is_finished
from cluster.job_client import JobClient, how_to_watch
from cluster.ray_job import STOP_WAIT, seconds_to_stop
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from configs.schema import Recipe


@dataclass(frozen=True, slots=True)
class Request:
    """A stage, as the cluster is asked for it: by the command that would run it here."""

    submission_id: str
    entrypoint: str
    metadata: dict[str, str]
    runtime_env: dict[str, object]

    @classmethod
    def of(
        cls,
        file: Path,
        recipe: Recipe,
        stage: int,
        overrides: Sequence[str],
        *,
        evaluated: bool,
        environment: Mapping[str, object] | None = None,
    ) -> Request:
        """The job gets the working folder, and takes relative folders of the recipe from where it lies now.

        `environment` is added to it, in the form of Ray's `runtime_env`. Raises ValueError for a recipe that is not in
        the folder, and for an environment that brings another one.
        """
        here = Path.cwd()
        if not file.resolve().is_relative_to(here):
            raise ValueError(
                f"{file} is not under {here}, which is what the job gets: give the command from a folder above the "
                "recipe, or copy it here"
            )
        name, output = str(file.resolve().relative_to(here)), RunFolder.of(recipe).path
        if evaluated:
            command = ["pipeline", name, "--stage", str(stage)]
        else:
            command = ["rl", name] if stage == 3 else ["sft", name, "--stage", str(stage)]
        words = ["python", "-m", "cluster", *command, "--from", str(here), *overrides]
        readable = re.sub(r"[^A-Za-z0-9_.]+", "-", recipe.name)
        return cls(
            submission_id=f"{readable}-stage{stage}-{time.strftime('%Y%m%d-%H%M%S')}",
            entrypoint=shlex.join(words),
            metadata={"recipe": name, "stage": str(stage), "output": str(output)},
            runtime_env={
                **(environment or {}),
                "working_dir": str(here),
                "excludes": [f"/{output.relative_to(here)}"] if output.is_relative_to(here) else [],
                "env_vars": {STOP_WAIT: str(seconds_to_stop(recipe)), **_variables(environment or {})},
            },
        )


def _variables(environment: Mapping[str, object]) -> Mapping[str, str]:
    """Those of a runtime environment. Raises ValueError for one that brings a folder, or variables that are none."""
    if taken := sorted(environment.keys() & {"working_dir", "excludes"}):
        raise ValueError(f"--runtime-env-json: {', '.join(taken)}: the job gets the folder where the command is given")
    variables = environment.get("env_vars", {})
    if not isinstance(variables, Mapping) or not all(isinstance(value, str) for value in variables.values()):
        raise ValueError(f"--runtime-env-json: env_vars is {variables!r}, expected an object with texts as values")
    return variables


def submit_stage(client: JobClient, request: Request, *, wait: bool) -> int:
    """Submit a stage and show its log; returns its exit code. Raises ValueError where a job has the run's folder."""
    if running := _running(client, request):
        raise _taken(running, request)
    _submit(client, request)
    if not wait:
        print(request.submission_id)
        return 0
    return _code(client.follow(request.submission_id))


def submit_pipeline(
    client: JobClient,
    file: Path,
    recipe: Recipe,
    overrides: Sequence[str],
    environment: Mapping[str, object] | None = None,
) -> int:
    """Submit the stages that are not finished, each when the one before has ended; returns the first bad exit code.

    A stage whose job runs already is followed. Raises Stopped where a job was stopped, or Ctrl-C was given.
    """
    for stage in STAGES:
        if is_finished(recipe, stage):
            print(f"stage {stage} is finished")
            continue
        request = Request.of(file, recipe, stage, overrides, evaluated=True, environment=environment)
        running = _running(client, request)
        if running is not None and running.entrypoint != request.entrypoint:
            raise _taken(running, request)
        job_id = _submit(client, request) if running is None else str(running.submission_id)
        try:
            code = _code(client.follow(job_id))
        except Stopped as stopped:
            raise Stopped(f"{stopped}\nThe stages after it are not submitted: the same command goes on.") from None
        if code:
            return code
        if RunFolder.of(recipe).path.exists() and not is_finished(recipe, stage):  # else it is not storage we share
            raise Stopped(f"{job_id} ended before its stage did: the same command goes on.")
    return 0


def _running(client: JobClient, request: Request) -> JobDetails | None:
    """The job that has the request's folder, or waits for it."""
    jobs = client.of_run(Path(request.metadata["output"]))
    return next((job for job in jobs if not job.status.is_terminal()), None)


def _taken(running: JobDetails, request: Request) -> ValueError:
    job_id = running.submission_id
    return ValueError(f"{job_id} works in {request.metadata['output']} already\n{how_to_watch(job_id)}")


def _submit(client: JobClient, request: Request) -> str:
    client.submit(**asdict(request))
    print(f"submitted {request.submission_id}\n{how_to_watch(request.submission_id)}", file=sys.stderr)
    return request.submission_id


def _code(job: JobDetails) -> int:
    """What a job that has ended is to be told as. Raises Stopped where it was stopped."""
    if job.status == JobStatus.STOPPED:
        raise Stopped(f"{job.submission_id} was stopped")
    if job.status == JobStatus.SUCCEEDED:
        return 0
    # Without an exit code the command was not even begun, which no log tells.
    why = job.message if job.driver_exit_code is None else f"exit code {job.driver_exit_code}"
    print(f"{job.submission_id} failed: {why}", file=sys.stderr)
    return job.driver_exit_code or 1
