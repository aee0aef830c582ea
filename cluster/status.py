"""One screen about a run: what its folder says, and the jobs that Ray has for it where Ray can be asked."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.digests import STAGES, is_trained
from cluster.job_book import TRAINING, Entry, in_use, last_entry
from cluster.job_client import JobClient, Unreachable, how_to_watch
from cluster.live_weights import shown, weights_asked_for
from cluster.metrics_files import read_metrics
from cluster.metrics_table import aligned
from cluster.run_folder import RunFolder, StageFolder
from cluster.run_log import Column
from cluster.sft_columns import SFT_COLUMNS
from cluster.step_metrics import COLUMNS
from configs.load import load_recipe
from configs.schema import Recipe, RewardWeights
from rewards.tasks import OVERALL

_WIDTH = 110  # characters
_EVALUATED = (Column("accuracy", "accuracy", 3), Column("brier", "Brier", 3), Column("ece", "ECE pt", 1, 100))


def status(run: RunFolder, address: str | None) -> str:
    """The screen. Raises FileNotFoundError where there is no run."""
    if not run.recipe.exists():
        raise FileNotFoundError(f"{run.path} is no run's folder: it has no {run.recipe.name}")
    recipe = load_recipe(run.recipe).model_copy(update={"output": str(run.path)})  # it may have been moved
    at, runs = last_entry(run.path), in_use(run.path)
    lines = [f"{recipe.name} in {run.path}", f"{'running' if runs else 'last job'}: {at or 'none'}"]
    for number in STAGES:
        lines += _stage(recipe, run, number, at if runs else None)
    return "\n".join([*lines, *_evaluations(recipe, run), *_jobs(run, address)])


def _stage(recipe: Recipe, run: RunFolder, number: int, at: Entry | None) -> Iterator[str]:
    """Lines on a stage; `at` is what the job that runs now is at."""
    stage, steps = run.stage(number), {1: recipe.stage1.steps, 2: recipe.stage2.steps, 3: recipe.rl.steps}[number]
    last = _last_line(stage)
    reached = f"step {last['step'] if last else 0} of {steps}"
    if is_trained(recipe, number):
        told = f"finished, {steps} steps"
    elif at is not None and at.stage == number:
        told = f"running at {reached}" if at.doing == TRAINING else "running"
    elif stage.trained:
        told = "finished, from other settings than the run's recipe has now"
    elif stage.begun:
        told = f"stopped at {reached}"
    else:
        told = "not begun"
    kept = ", ".join(str(int(path.name.removeprefix("step-"))) for path in sorted(stage.checkpoints.glob("step-*")))
    yield f"stage {number}: {told}" + (f"; checkpoints at {kept}" if kept else "")
    if last is not None:
        columns = COLUMNS if number == 3 else SFT_COLUMNS
        known = [column for column in columns if last.get(column.metric) is not None]
        numbers = ", ".join(f"{column.header} {column.show(last).strip()}" for column in known)
        yield _indented(f"last line {_age(_log(stage).stat().st_mtime)} ago: {numbers}")
    if number == 3:
        yield _indented(f"reward mix: {_mix(run, last)}")


def _log(stage: StageFolder) -> Path:
    return stage.path / "log.jsonl"


def _last_line(stage: StageFolder) -> dict[str, Any] | None:
    """The last whole line of a stage's log."""
    if not _log(stage).exists():
        return None
    lines = _log(stage).read_text(encoding="utf-8").split("\n")[:-1]
    found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
    return found


def _mix(run: RunFolder, last: Mapping[str, Any] | None) -> str:
    """The weights of the last step, and those of the next where they were changed since."""
    asked = weights_asked_for(run)
    if last is None:
        return shown(asked)
    trained = RewardWeights(**{name: last[f"weight/{name}"] for name in RewardWeights.model_fields})
    return shown(trained) + ("" if trained == asked else f"; from the next step on: {shown(asked)}")


def _evaluations(recipe: Recipe, run: RunFolder) -> Iterator[str]:
    """A table of the evaluations that there are."""
    rows = []
    for name in recipe.data.evaluation:
        for number in STAGES:
            file = run.stage(number).evaluation(name) / "metrics.json"
            if file.exists():
                found = asdict(read_metrics(file)[OVERALL])
                rows.append((f"{name}, stage {number}", *(column.show(found).strip() for column in _EVALUATED)))
    if rows:
        yield aligned([column.header for column in _EVALUATED], rows)


def _jobs(run: RunFolder, address: str | None) -> Iterator[str]:
    """The jobs of the run that a cluster knows, and what can be done with those that run."""
    try:
        client = JobClient.connected(address)
        jobs = client.of_run(run.path)
    except Unreachable as error:
        yield f"jobs: {str(error).splitlines()[0]}"
        return
    yield f"jobs of {client.get_address()}: {'' if jobs else 'none'}"
    for job in jobs:
        since = time.strftime("%d %b %H:%M", time.localtime((job.start_time or 0) / 1000))
        yield f"  {job.submission_id}: {job.status.lower()}, submitted {since}"
        if not job.status.is_terminal():
            yield textwrap.indent(how_to_watch(str(job.submission_id)), "  ")


def _age(seconds: float) -> str:
    """How long ago that was."""
    age = max(0.0, time.time() - seconds)
    number, unit = (age, "s") if age < 120 else (age / 60, "min") if age < 7200 else (age / 3600, "h")
    return f"{number:.0f} {unit}"


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
