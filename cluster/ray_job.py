"""What a command knows of the Ray job that it is, from what `ray job submit` put into its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SECONDS = "RAY_JOB_STOP_WAIT_TIME_S"


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


def losses_ahead(folder: Path) -> Iterator[str]:
    """What such a job would lose as it was submitted, with the remedy; `caliber submit` leaves nothing of it."""
    if submission_id() is None:
        return
    if "working_dir_files" in folder.parts:
        yield (
            f"{folder} is in Ray's copy of the working folder, which Ray removes in time: "
            "give an absolute folder, output=/a/folder, or submit with `caliber submit`"
        )
    if _SECONDS not in os.environ:
        yield (
            "`ray job stop` gives this job 3 s, too few for a checkpoint: submit with "
            f"""--runtime-env-json '{{"env_vars": {{"{_SECONDS}": "1200"}}}}', or with `caliber submit`"""
        )
