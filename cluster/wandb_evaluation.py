"""An evaluation at Weights & Biases: its numbers, a few telling responses, and the reliability diagram.

The diagram is a table and a bitmap drawn by pillow. A chart of `wandb.plot` would be drawn in the browser, from a
template of the service: there would be nothing to look at offline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cluster.evaluation import Evaluated
from cluster.reliability_bitmap import reliability_bitmap
from cluster.telling_rollouts import Answered, answered, telling
from cluster.wandb_run import wandb_run
from configs.schema import Evaluation, Recipe
from rewards.reliability import reliability
from rewards.tasks import OVERALL

_ROLLOUT_COLUMNS = ["kind", *(field.name for field in dataclasses.fields(Answered))]
_BIN_COLUMNS = ["low", "high", "n", "confidence", "accuracy"]


def tell_wandb(folder: Path, stage: str, step: int, recipe: Recipe, evaluated: Mapping[str, Evaluated]) -> None:
    """Add evaluation files, by name, of the model after `step` to the run of a stage's folder, where it has one."""
    run = wandb_run(folder, stage, recipe)
    if run is None:
        return

    def line() -> dict[str, object]:
        lines = (wandb_line(name, found, recipe.evaluation) for name, found in evaluated.items())
        return {key: value for line in lines for key, value in line.items()}

    run.log_evaluation(line, step)
    run.finish(exit_code=0)


def wandb_line(name: str, found: Evaluated, settings: Evaluation) -> dict[str, object]:
    """What to log of the evaluation file of this name; of a stage without confidences the numbers alone."""
    import wandb

    overall, stated = found.metrics[OVERALL], found.held.where(found.held.confident)
    line: dict[str, object] = {
        f"evaluation/{name}/{metric}": value
        for metric, value in dataclasses.asdict(overall).items()
        if isinstance(value, int | float)
    }
    if not len(stated):
        return line
    bins = reliability(found.held, settings.bins)
    picture = reliability_bitmap(f"{name}: ECE {100 * (overall.ece or 0):.1f} points, {len(stated)} outcomes", bins)
    # New tables each time: one that was logged is not to be added to.
    responses = answered(found.rows, found.held, settings.annotator_draws)
    rollouts = [[kind, *dataclasses.astuple(one)] for kind, one in telling(responses)]
    return {
        **line,
        f"evaluation/{name}/rollouts": wandb.Table(columns=_ROLLOUT_COLUMNS, data=rollouts),
        f"evaluation/{name}/reliability_bins": wandb.Table(
            columns=_BIN_COLUMNS, data=[[getattr(one, name) for name in _BIN_COLUMNS] for one in bins]
        ),
        f"evaluation/{name}/reliability_diagram": wandb.Image(picture),
    }
