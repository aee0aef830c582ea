"""The commands about jobs of a Ray cluster and what became of them: `submit` and `status`."""

from __future__ import annotations

import argparse
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

    status = command(commands, "status", _status, "how far a run is: its stages, their last numbers, its jobs")
    status.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    takes_address(status)


def takes_address(parser: argparse.ArgumentParser) -> None:
    """Which cluster."""
    parser.add_argument(
        "--address", help="of the cluster, http://HEAD-NODE:8265 (default: RAY_ADDRESS, or one of this machine's)"
    )


def _submit(options: argparse.Namespace) -> int:
    recipe = usable_recipe(options)
    from cluster.job_client import JobClient
    from cluster.submit import Request, submit_stage

    request = Request.of(options.recipe, recipe, options.stage, options.overrides, evaluated=False)
    return submit_stage(JobClient.connected(options.address), request, wait=not options.no_wait)


def submit_all(options: argparse.Namespace) -> int:
    """`pipeline --submit`. Raises ValueError for options of a pipeline that runs here."""
    for name, given in (("--fresh", options.fresh), ("--force", options.force), ("--from", options.place)):
        if given:
            raise ValueError(f"{name} is for a pipeline that runs here; leave it out, or leave --submit out")
    recipe = usable_recipe(options)
    from cluster.job_client import JobClient
    from cluster.submit import submit_pipeline

    return submit_pipeline(JobClient.connected(options.address), options.recipe, recipe, options.overrides)


def _status(options: argparse.Namespace) -> int:
    from cluster.status import status

    print(status(RunFolder(options.run.absolute()), options.address))
    return 0
