"""A stage's run at Weights & Biases, on which training does not depend: it may be out of reach, or its process end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cluster.wandb_service import keep_service, leave_service, release_service
from cluster.wandb_source import source_of
from configs.schema import Recipe, WandbMode

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH = 120.0  # to send what it has when the stage ends; `wandb sync` sends the rest
EVALUATED_STEP = "evaluation/step"  # the axis of all else under `evaluation/`; all other metrics' is the stage's step
# What a run is summed up by beside its last line. Others have that alone.
_SUMMARIES = {
    "min,last": ("loss", "evaluation_loss", "brier", "ece", "reliability", "malformed"),
    "max,last": ("reward", "accuracy", "resolution"),
}


class WandbRun:
    """Takes lines until it fails; the log's file has them all."""

    def __init__(self, run: wandb.Run, stage: str) -> None:
        self._run: wandb.Run | None = run
        self._stage = stage

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step."""
        self._ask(lambda run: run.log(dict(metrics), step=step))

    def save_source(self, recipe: Recipe) -> None:
        """Keep the code that runs, and the complete recipe, with the run; the same twice is kept once."""
        self._ask(lambda run: run.log_artifact(source_of(recipe)))

    def log_evaluation(self, found: Callable[[], Mapping[str, object]], step: int) -> None:
        """Take numbers, tables and pictures of the model after `step`, as a line behind all there are.

        They are made here: tables and pictures are wandb's, who writes files for them.
        """
        self._ask(lambda run: run.log({EVALUATED_STEP: step, **found()}, step=max(run.step, step + 1)))

    def finish(self, exit_code: int) -> None:
        """End the run, within `SECONDS_TO_FINISH`."""
        self._ask(lambda run: run.finish(exit_code=exit_code))
        release_service()

    def _ask(self, ask: Callable[[wandb.Run], object]) -> None:
        if self._run is None:
            return
        try:
            ask(self._run)
        except Exception:  # of another process, and of many kinds
            self._run = None
            logger.exception("%s: WEIGHTS & BIASES FAILED; from here on the lines are in log.jsonl alone", self._stage)


def wandb_run(folder: Path, stage: str, recipe: Recipe) -> WandbRun | None:
    """The run that lines go to; None where the recipe wants none, or none can be begun, which is logged.

    Where there is no key, or the service cannot be reached, they go to files in `folder`. A refused key raises wandb's
    own error.
    """
    if recipe.wandb.mode is WandbMode.DISABLED:
        return None
    from wandb.errors import AuthenticationError  # here: it takes a second to import, and most runs do without

    try:
        return _begun(folder, stage, recipe)
    except AuthenticationError:
        raise
    except Exception:  # of other processes, and of many kinds
        logger.exception("%s: WEIGHTS & BIASES DOES NOT START; the lines are in log.jsonl alone", stage)
        release_service()
        return None


def _begun(folder: Path, stage: str, recipe: Recipe) -> WandbRun:
    """The run, online where that is wanted and can be, else offline."""
    import wandb
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
        run.define_metric(EVALUATED_STEP, summary="last")
        run.define_metric("evaluation/*", step_metric=EVALUATED_STEP)
        for summary, names in _SUMMARIES.items():
            for name in names:
                run.define_metric(name, summary=summary)
        return WandbRun(run, stage)

    where = folder / "wandb"
    if recipe.wandb.mode is WandbMode.ONLINE and not _has_key():
        logger.error("WEIGHTS & BIASES HAS NO KEY (WANDB_API_KEY); lines go to %s, `wandb sync` sends them", where)
        return begun(WandbMode.OFFLINE)
    try:
        return begun(recipe.wandb.mode)
    except AuthenticationError:
        raise
    except CommError as error:
        logger.error("WEIGHTS & BIASES CANNOT BE REACHED; lines go to %s, `wandb sync` sends them: %s", where, error)
        leave_service()
        return begun(WandbMode.OFFLINE)


def _has_key() -> bool:
    """Whether there is a key for the service, of the environment or of `wandb login`.

    Asked for here because `wandb.init` without one waits for somebody to type it, where there is a terminal.
    """
    import wandb
    from wandb.sdk.lib.wbauth import authenticate_session

    host = wandb.setup().settings.base_url
    return authenticate_session(host=host, source="caliber", prompt=False) is not None
