"""What a command knows of the Ray job that it is, from what `ray job submit` put into its environment."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.schema import Recipe

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
_RAYS_OWN = 3  # seconds, where nothing is set


def seconds_to_stop(recipe: Recipe) -> int:
    """How long a job may take to end in order once it is told to stop."""
    # One wait for the step that is under way, one for what has to be closed.
    copying = 0.0 if recipe.mirror.address is None else recipe.mirror.seconds_for_last_copy
    return math.ceil(2 * recipe.rl.seconds_per_wait + copying)


def submission_id() -> str | None:
    """Its id; None for a command that no such job runs."""
    found = _config().get("metadata", {}).get("job_submission_id")
    return None if found is None else str(found)


def variables_given() -> frozenset[str]:
    """Names of the environment variables that it was submitted with."""
    return frozenset(_config().get("runtime_env", {}).get("env_vars", {}))


def _config() -> dict[str, Any]:
    given: dict[str, Any] = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return given


def losses_ahead(folder: Path, recipe: Recipe) -> Iterator[str]:
    """What such a job would lose as it was submitted, with the remedy; `caliber submit` leaves nothing of it."""
    if submission_id() is None:
        return
    if "working_dir_files" in folder.parts:
        yield (
            f"{folder} is in Ray's copy of the working folder, which Ray removes in time: "
            "give an absolute folder, output=/a/folder, or submit with `caliber submit`"
        )
    given, needed = int(os.environ.get(STOP_WAIT, _RAYS_OWN)), seconds_to_stop(recipe)
    if given < needed:
        copied = "" if recipe.mirror.address is None else ", and its last copy to the mirror"
        variables = f'{{"env_vars": {{"{STOP_WAIT}": "{needed}"}}}}'
        yield (
            f"`ray job stop` gives this job {given} s, and its last step and checkpoint{copied} may take {needed} s: "
            f"submit with --runtime-env-json '{variables}', or with `caliber submit`"
        )
