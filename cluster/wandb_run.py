"""A stage's run at Weights & Biases, on which training does not depend: it may be out of reach, or its process end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cluster.wandb_service import keep_service, leave_service
from configs.schema import Recipe, WandbMode

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH = 120.0  # to send what it has when the stage ends; `wandb sync` sends the rest


class WandbRun:
    """Takes lines until it fails; the log's file has them all."""

    def __init__(self, run: wandb.Run, stage: str) -> None:
        self._run: wandb.Run | None = run
        self._stage = stage

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step."""
        self._ask(lambda run: run.log(dict(metrics), step=step))

    def finish(self, exit_code: int) -> None:
        """End the run, within `SECONDS_TO_FINISH`."""
        self._ask(lambda run: run.finish(exit_code=exit_code))

    def _ask(self, ask: Callable[[wandb.Run], object]) -> None:
        if self._run is None:
            return
        try:
            ask(self._run)
        except Exception:  # of another process, and of many kinds
            self._run = None
            logger.exception("%s: WEIGHTS & BIASES FAILED; from here on the lines are in log.jsonl alone", self._stage)


def wandb_run(folder: Path, stage: str, recipe: Recipe) -> WandbRun | None:
    """The run that lines go to; None where the recipe wants none. A refused key raises wandb's own error.

    Where the service cannot be reached they go to files in `folder`.
    """
    if recipe.wandb.mode is WandbMode.DISABLED:
        return None
    import wandb  # here: it takes a second to import, and most runs do without
    from wandb.errors import AuthenticationError, CommError

    # A resumed job goes on in the same run; which one that is lies beside the log, and goes where that goes.
    kept = folder / "wandb_run_id"
    if not kept.exists() or not kept.read_text(encoding="utf-8"):
        kept.write_text(uuid4().hex, encoding="utf-8")

    def begun(mode: WandbMode) -> WandbRun:
        keep_service()
        run = wandb.init(
            id=kept.read_text(encoding="utf-8"),
            resume="allow",
            project=recipe.wandb.project,
            name=f"{recipe.name}-{stage}",
            dir=str(folder),
            mode=mode.value,
            config=recipe.model_dump(mode="json"),
            settings=wandb.Settings(finish_timeout=SECONDS_TO_FINISH),
        )
        return WandbRun(run, stage)

    try:
        return begun(recipe.wandb.mode)
    except AuthenticationError:
        raise
    except CommError as error:
        where = folder / "wandb"
        logger.error("WEIGHTS & BIASES CANNOT BE REACHED; lines go to %s, `wandb sync` sends them: %s", where, error)
        leave_service()
        return begun(WandbMode.OFFLINE)
