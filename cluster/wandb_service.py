"""Weights & Biases' service, kept from a signal that is not meant for it."""

from __future__ import annotations

import os
import subprocess
import sys

from cluster.ray_job import submission_id

_VARIABLE = "WANDB_SERVICE"
_SECONDS_TO_START = 60.0  # a process imports wandb, busy machines are slow at it; the job stands still meanwhile
_IDLE = "60s"  # after the last run was closed it ends by itself


def keep_service() -> None:
    """In a Ray job, have the service started by a process that ends at once, and so be no child of the job's.

    `ray job stop` sends its signal to all of a job's children. The service would end before the run is closed. Raises
    RuntimeError or TimeoutExpired where it does not start.
    """
    if submission_id() is None or _VARIABLE in os.environ:
        return
    command = [sys.executable, "-m", "wandb", "beta", "core", "start", "--idle-timeout", _IDLE]
    started = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_START)
    if started.returncode != 0:
        raise RuntimeError(f"`{' '.join(command[1:])}` failed: {started.stderr.strip()}")
    os.environ[_VARIABLE] = started.stdout.strip()


def leave_service() -> None:
    """Begin the next run with another service: one that could not begin a run holds it, and ends when it is idle."""
    import wandb

    wandb.teardown()
    os.environ.pop(_VARIABLE, None)


def release_service() -> None:
    """Let the service that `keep_service` had started go: until the job's next run begins it may have ended itself."""
    if submission_id() is not None and _VARIABLE in os.environ:
        leave_service()
