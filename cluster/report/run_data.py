"""What a run's folder says, read once: the recipe, the logs, the evaluations, and the rollouts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.calibration_by_lag import CalibrationByLag
from cluster.checkpoints import CheckpointError, CheckpointFolder
from cluster.live_weights import weights_asked_for
from cluster.report.evaluations import STAGES, Evaluation, read_evaluations
from cluster.report.mixes import Mixes
from cluster.report.responses import ResponseRow
from cluster.report.rollouts import rollout_rows
from cluster.run_folder import LogLine, RunFolder, StageFolder
from cluster.saved_groups import saved_groups
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.prompts import Prompt
from rollout.readers import DataError, read_prompts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunData:
    """A run as far as it has come."""

    path: Path
    recipe: Recipe
    logs: Mapping[int, list[LogLine]]  # by stage, ascending; [] where it has not begun
    mixes: Mixes
    lags: tuple[int, CalibrationByLag] | None  # up to which step, and the counts; None: no checkpoint of stage 3
    evaluations: list[Evaluation]
    rollouts: list[ResponseRow]
    prompts: Mapping[tuple[str, str], Prompt]  # by file and id: those of the data's files that could be read

    @property
    def rows(self) -> list[ResponseRow]:
        """Every response: stage 3's rollouts, then the evaluations'."""
        return [*self.rollouts, *(row for one in self.evaluations for row in one.rows)]


def read_run(path: Path) -> RunData:
    """Read it. Raises FileNotFoundError where there is no run, and what its files raise that are not whole."""
    run = RunFolder(path.absolute())
    if not run.recipe.exists():
        raise FileNotFoundError(f"{run.path} is no run's folder: it has no {run.recipe.name}")
    recipe = load_recipe(run.recipe)
    logs = {stage: run.stage(stage).log for stage in STAGES}
    mixes = Mixes(logs[3], weights_asked_for(run))
    return RunData(
        path=run.path,
        recipe=recipe,
        logs=logs,
        mixes=mixes,
        lags=_lags(run.stage(3)),
        evaluations=read_evaluations(run, recipe),
        rollouts=rollout_rows(saved_groups(run.stage(3).rollouts), recipe, mixes),
        prompts=_prompts(recipe),
    )


def _lags(stage: StageFolder) -> tuple[int, CalibrationByLag] | None:
    """Calibration by policy lag as the newest checkpoint that can be read has it."""
    saved = CheckpointFolder(stage.checkpoints, kept=1)
    for folder in saved.newest_first():
        try:
            found = saved.read(folder)
        except CheckpointError as error:
            logger.warning("%s", error)
            continue
        lags = CalibrationByLag()
        lags.load_state_dict(found.state["calibration_by_lag"])
        return found.step, lags
    return None


def _prompts(recipe: Recipe) -> dict[tuple[str, str], Prompt]:
    """The prompts of stage 3 and of the evaluations; files that are gone, or bad by now, are told of and left out."""
    root, found = Path(recipe.data.root), {}
    for name in dict.fromkeys([recipe.data.stage3, *recipe.data.evaluation.values()]):
        try:
            prompts = read_prompts(
                root / name,
                root,
                columns=recipe.data.columns,
                megapixels_at_most=recipe.data.image_megapixels_at_most,
                need_response=False,
                require_reference=False,
            )
        except DataError as error:
            logger.warning("prompts are shown by their ids alone: %s", str(error).splitlines()[0])
        else:
            found.update({(name, prompt.prompt_id): prompt for prompt in prompts})
    return found
