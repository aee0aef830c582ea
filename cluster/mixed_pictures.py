"""Rows with pictures beside rows without, which ranks under ZeRO-3 cannot train on."""

from __future__ import annotations

from collections.abc import Sequence

from configs.schema import Recipe
from rollout.prompts import Prompt
from rollout.readers import DataError


def refuse_mixed(recipe: Recipe, file: str, prompts: Sequence[Prompt]) -> None:
    """Raise DataError where ranks that train on these would wait for each other until `rl.seconds_per_wait`.

    Under ZeRO-3 all ranks gather a layer's parameters together, and a micro-batch without pictures asks for none of
    the vision tower's.
    """
    learner = recipe.learner
    bare = [prompt.prompt_id for prompt in prompts if not prompt.images]
    if learner.zero_stage == 3 and learner.ranks > 1 and 0 < len(bare) < len(prompts):
        raise DataError(
            [
                f"{file}: {len(bare)} of {len(prompts)} prompts have no picture, {bare[0]} the first of them. Under "
                f"learner.zero_stage 3 with {learner.ranks} ranks either all have one or none: set learner.zero_stage "
                "to 2, or keep the two kinds in runs of their own"
            ],
            recipe.data.errors_shown,
        )
