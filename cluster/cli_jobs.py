"""The commands about jobs of a Ray cluster and what became of them: `submit` and `status`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cluster.cli_parts import command, takes_recipe, usable_recipe
from cluster.run_folder import RunFolder


def add_job_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare them."""
    submit = command(commands, "submit", _submit, "one stage as a job of a Ray cluster; its log is shown until it ends")
    takes_recipe(submit)
    submit.add_argument("--stage", type=int, choices=[1, 2, 3], default=3, help="which (default: %(default)s)")
    submit.add_argument("--no-wait", action="store_true", help="print the job's id and leave it")
    takes_address(submit)
    takes_environment(submit)

    status = command(commands, "status", _status, "how far a run is: its stages, their last numbers, its jobs")
    status.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    takes_address(status)


def takes_address(parser: argparse.ArgumentParser) -> None:
    """Which cluster."""
    parser.add_argument(
        "--address", help="of the cluster, http://HEAD-NODE:8265 (default: RAY_ADDRESS, or one of this machine's)"
    )


def takes_environment(parser: argparse.ArgumentParser) -> None:
    """What else a job's processes get."""
    parser.add_argument(
        "--runtime-env-json",
        type=_environment,
        metavar="JSON",
        help='as `ray job submit` has it, for {"env_vars": {"NAME": "value"}} or packages; no secrets, Ray shows it',
    )


def _environment(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no object of JSON")
    return found


def _submit(options: argparse.Namespace) -> int:
    recipe = usable_recipe(options)
    from cluster.job_client import JobClient
    from cluster.submit import Request, submit_stage

    given, environment = (options.recipe, recipe, options.stage, options.overrides), options.runtime_env_json
    request = Request.of(*given, evaluated=False, environment=environment)
    return submit_stage(JobClient.connected(options.address), request, wait=not options.no_wait)


def submit_all(options: argparse.Namespace) -> int:
    """`pipeline --submit`. Raises ValueError for options of a pipeline that runs here."""
    for name, given in (("--fresh", options.fresh), ("--force", options.force), ("--from", options.place)):
        if given:
            raise ValueError(f"{name} is for a pipeline that runs here; leave it out, or leave --submit out")
    recipe = usable_recipe(options)
    from cluster.job_client import JobClient
    from cluster.submit import submit_pipeline

    client, environment = JobClient.connected(options.address), options.runtime_env_json
    return submit_pipeline(client, options.recipe, recipe, options.overrides, environment)


def _status(options: argparse.Namespace) -> int:
    from cluster.status import status

    print(status(RunFolder(options.run.absolute()), options.address))
    return 0
