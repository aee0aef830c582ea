"""What an evaluation wrote: metrics by task, and beside them the baselines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from rewards.metrics import Metrics

_BASELINES = "baselines.json"


def write_metrics(path: Path, metrics: Mapping[str, Metrics]) -> None:
    """Metrics by task as JSON; undefined ones are null."""
    text = json.dumps({task: dataclasses.asdict(found) for task, found in metrics.items()}, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_metrics(path: Path) -> dict[str, Metrics]:
    """What `write_metrics` wrote."""
    return {task: Metrics(**found) for task, found in json.loads(path.read_text(encoding="utf-8")).items()}


def write_baselines(folder: Path, found: Mapping[str, Metrics]) -> None:
    """The baselines of an evaluation, into its folder."""
    write_metrics(folder / _BASELINES, found)


def read_baselines(folder: Path) -> dict[str, Metrics]:
    """The baselines of an evaluation's folder, by name; none where it was made before there were any."""
    path = folder / _BASELINES
    return read_metrics(path) if path.exists() else {}
