"""A model to be used, and the recipe that says how it is spoken to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.run_folder import RunFolder
from configs.load import load_recipe
from configs.schema import Recipe

_MODEL = "config.json"  # of a Hugging Face directory


def finished_model(path: Path, recipe: Path | None = None, overrides: Sequence[str] = ()) -> tuple[Path, Recipe]:
    """The model's directory, absolute, and its recipe with the overrides.

    `path` is a run's folder, of which the model is stage 3's, or a model's directory. Without `recipe` the recipe is
    that of the run, or the `recipe.yaml` in the model's directory or in the run's folder that it lies in.
    Raises FileNotFoundError where there is no such model or no recipe.
    """
    path = path.absolute()
    if (path / _MODEL).exists():
        model, places = path, [path, *path.parents[1:2]]
    else:
        run = RunFolder(path)
        model, places = run.stage(3).model, [path]
        if not (model / _MODEL).exists():
            raise FileNotFoundError(
                f"{path} is neither a model's directory, with a {_MODEL}, nor the folder of a run whose stage 3 has "
                f"ended, with {model.relative_to(path)}: give one of them, such as a run's stage2/model"
            )
    found = [RunFolder(place).recipe for place in places] if recipe is None else [recipe]
    there = next((file for file in found if file.exists()), None)
    if there is None:
        looked = " and ".join(map(str, found))
        raise FileNotFoundError(
            f"{looked}: no such file; the recipe says how a response is written: name it with --recipe"
        )
    return model, load_recipe(there, overrides)
