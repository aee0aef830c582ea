"""What a run was made with: Caliber's own code and the complete recipe, as an artifact of Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cluster
import configs
import learner
import rewards
import rollout
from configs.load import resolved
from configs.schema import Recipe

if TYPE_CHECKING:
    import wandb

_PACKAGES = (cluster, configs, learner, rewards, rollout)
_COMPILED = "__pycache__"


def source_of(recipe: Recipe) -> wandb.Artifact:
    """The packages' files under their own names, and `recipe.yaml`. Nothing of the user's folder is taken."""
    import wandb

    artifact = wandb.Artifact(f"source-{recipe.name}", type="source")
    for package in _PACKAGES:
        (folder,) = map(Path, package.__path__)
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and _COMPILED not in path.parts):
            artifact.add_file(str(file), name=file.relative_to(folder.parent).as_posix())
    with artifact.new_file("recipe.yaml", mode="w", encoding="utf-8") as text:
        text.write(resolved(recipe))
    return artifact
