"""The reward weights of a running stage 3: the recipe's, until `caliber reweight` writes others into its folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from cluster.run_folder import RunFolder
from configs.load import load_recipe
from configs.schema import Rewards, RewardWeights
from rewards.safety import refuse_unsafe

logger = logging.getLogger(__name__)


class LiveWeights:
    """Looks into the file at every step. One that cannot be used is told once, and the weights stay as they were."""

    def __init__(self, file: Path, rewards: Rewards) -> None:
        self._file = file
        self._rewards = rewards
        self._weights = rewards.weights
        self._seen: bytes | None = None

    def current(self, step: int) -> RewardWeights:
        """The weights to train `step` with."""
        try:
            found = self._file.read_bytes()
        except FileNotFoundError:
            return self._weights
        if found == self._seen:
            return self._weights
        self._seen = found
        try:
            weights = RewardWeights.model_validate_json(found)
            refuse_unsafe(self._rewards.model_copy(update={"weights": weights}))
        except ValueError as error:  # pydantic's among them
            logger.error("%s is not used, the weights stay %s: %s", self._file, shown(self._weights), error)
            return self._weights
        if weights != self._weights:
            logger.warning("reward weights from step %d on: %s, before: %s", step, shown(weights), shown(self._weights))
        self._weights = weights
        return weights

    def restore(self, weights: object) -> None:
        """Go on with a checkpoint's weights; a file that says others has the last word."""
        self._weights = RewardWeights.model_validate(weights)


def reweight(run: RunFolder, changes: Sequence[str]) -> tuple[RewardWeights, RewardWeights]:
    """Change weights, each as NAME=NUMBER, for the run's next step; returns the old ones and the new.

    Raises RecipeError for names and numbers that are none, ValueError for a mix that can be gamed, and
    FileNotFoundError where there is no run.
    """
    rewards = load_recipe(run.recipe).rewards
    before, file = weights_asked_for(run), run.stage(3).weights
    kept = [f"rewards.weights.{name}={weight}" for name, weight in before.model_dump().items()]
    recipe = load_recipe(run.recipe, [*kept, *(f"rewards.weights.{change}" for change in changes)])
    weights = recipe.rewards.weights
    refuse_unsafe(rewards.model_copy(update={"weights": weights}))
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(weights.model_dump_json() + "\n", encoding="utf-8")
    aside.replace(file)
    return before, weights


def weights_asked_for(run: RunFolder) -> RewardWeights:
    """The weights of a run's next step: those that `reweight` asked for last, or the recipe's."""
    file = run.stage(3).weights
    return (
        RewardWeights.model_validate_json(file.read_bytes())
        if file.exists()
        else load_recipe(run.recipe).rewards.weights
    )


def shown(weights: RewardWeights) -> str:
    """The weights in a line."""
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.model_dump().items())
