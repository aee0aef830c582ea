"""A stage's run at Weights & Biases, or in files beside the log where that cannot be reached."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cluster.wandb_service import keep_service, leave_service
from configs.schema import Recipe, WandbMode

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)


def wandb_run(folder: Path, stage: str, recipe: Recipe) -> wandb.Run | None:
    """The run that lines go to; None where the recipe wants none. A refused key raises wandb's own error."""
    if recipe.wandb.mode is WandbMode.DISABLED:
        return None
    import wandb  # here: it takes a second to import, and most runs do without
    from wandb.errors import AuthenticationError, CommError

    # A resumed job goes on in the same run; which one that is lies beside the log, and goes where that goes.
    kept = folder / "wandb_run_id"
    if not kept.exists() or not kept.read_text(encoding="utf-8"):
        kept.write_text(uuid4().hex, encoding="utf-8")

    def begun(mode: WandbMode) -> wandb.Run:
        keep_service()
        return wandb.init(
            id=kept.read_text(encoding="utf-8"),
            resume="allow",
            project=recipe.wandb.project,
            name=f"{recipe.name}-{stage}",
            dir=str(folder),
            mode=mode.value,  # type: ignore[arg-type]  # the same words
            config=recipe.model_dump(mode="json"),
        )

    try:
        return begun(recipe.wandb.mode)
    except AuthenticationError:
        raise
    except CommError as error:
        logger.error(
            "WEIGHTS & BIASES CANNOT BE REACHED, and %s goes on without: its lines are kept in %s, `wandb sync` sends "
            "them: %s",
            stage,
            folder / "wandb",
            error,
        )
        leave_service()
        return begun(WandbMode.OFFLINE)
