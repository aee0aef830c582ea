"""What trials traded accuracy against Brier score for: who is on the front, as a table, as JSON and as pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.interval_tables import shown_metric
from cluster.matchers import opened
from cluster.metrics_table import UNDEFINED, aligned
from cluster.predictions import read_predictions
from cluster.score import outcomes
from cluster.trade_off_picture import Place, picture
from cluster.trial_progress import read_lines
from cluster.trials import Trial
from rewards.bootstrap import RESAMPLES, Interval, intervals

_COLUMNS = {"accuracy": "accuracy", "brier": "Brier", "excess_brier": "excess", "ece": "ECE pt"}
_FRONT = "front"
LEGEND = (
    f"With 95% intervals: {RESAMPLES} resamples of the prompts, without the luck of a run's seed. front: no other "
    "trial is as accurate with a lower Brier score, or more accurate with one as low."
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished trial on an evaluation file."""

    name: str
    found: Mapping[str, Interval]  # by metric, as `rewards.bootstrap.intervals` names them
    front: bool = False


def report(trials: Sequence[Trial], folder: Path) -> str:
    """A table for each evaluation file and what became of the other trials; written into the folder, with pictures."""
    tables, record = [], {}
    for name in trials[0].recipe.data.evaluation:
        measured = with_front([Measured(trial.name, _found(trial, name)) for trial in trials if trial.finished])
        tables.append(f"{name}\n{table(measured)}")
        record[name] = [dataclasses.asdict(one) for one in measured]
        (folder / f"trade_off-{name}.svg").write_text(picture(name, places(measured)), encoding="utf-8")
    states = [{"trial": trial.name, "settings": dict(trial.settings), "state": state(trial)} for trial in trials]
    text = json.dumps({"trials": states, "evaluation": record}, indent=1, allow_nan=False)
    (folder / "trade_off.json").write_text(text + "\n", encoding="utf-8")
    others = [f"{trial.name}: {state(trial)}" for trial in trials if not trial.finished]
    told = "\n".join([*tables, LEGEND, *others])
    (folder / "trade_off.txt").write_text(told + "\n", encoding="utf-8")
    return f"{told}\n{folder}: trade_off.txt, trade_off.json, trade_off-NAME.svg"


def with_front(measured: Sequence[Measured]) -> list[Measured]:
    """The same, those marked that no other one beats in accuracy or Brier score and matches in the other."""
    points = [(one.found["accuracy"].value, one.found["brier"].value) if _placed(one) else None for one in measured]

    def beaten(accuracy: float, brier: float) -> bool:
        return any(
            a >= accuracy and b <= brier and (a, b) != (accuracy, brier)
            for a, b in (point for point in points if point is not None)
        )

    return [
        dataclasses.replace(one, front=point is not None and not beaten(*point))
        for one, point in zip(measured, points, strict=True)
    ]


def table(measured: Sequence[Measured]) -> str:
    """A row for each trial."""
    rows = [
        (one.name, *(_cell(name, one.found.get(name)) for name in _COLUMNS), _FRONT if one.front else "")
        for one in measured
    ]
    return aligned([*_COLUMNS.values(), ""], rows)


def places(measured: Sequence[Measured]) -> list[Place]:
    """Where the trials are in the picture: those that stated confidences."""
    return [Place(one.name, one.found["brier"], one.found["accuracy"], one.front) for one in measured if _placed(one)]


def state(trial: Trial) -> str:
    """What became of a trial."""
    if trial.finished:
        return "finished"
    steps = len(read_lines(trial.run.stage(3).path / "log.jsonl"))
    return f"{'given up' if trial.given_up else 'not finished'}, step {steps} of {trial.recipe.rl.steps}"


def _placed(one: Measured) -> bool:
    return "brier" in one.found


def _found(trial: Trial, name: str) -> dict[str, Interval]:
    recipe, settings = trial.recipe, trial.recipe.evaluation
    rows = read_predictions(trial.run.stage(3).evaluation(name) / "predictions.jsonl")
    with opened(recipe.rewards, recipe.reward_service) as matches:
        held = outcomes(
            rows,
            recipe.response,
            settings.annotator_draws,
            settings.seed,
            matches=matches,
            at_once=recipe.rewards.answers_at_once,
        )
    return intervals(held, seed=settings.seed, bins=settings.bins)


def _cell(name: str, found: Interval | None) -> str:
    if found is None:
        return UNDEFINED
    value, low, high = (shown_metric(name, number) for number in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"
