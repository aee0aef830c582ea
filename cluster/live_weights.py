"""The reward weights of a running stage 3: the recipe's, until `caliber reweight` writes others into its folder."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.digests import training_digest
from cluster.run_folder import RunFolder
from configs.load import load_recipe, refuse_null
from configs.schema import Rewards, RewardWeights
from rewards.safety import refuse_unsafe, unsafe

logger = logging.getLogger(__name__)


class LiveWeights:
    """Looks into the file at every step. One that cannot be used is told once, and the weights stay as they were."""

    def __init__(self, file: Path, rewards: Rewards) -> None:
        self._file = file
        self._rewards = rewards
        self._weights = rewards.weights
        self._seen: bytes | None = None
        self._readable = True

    def current(self, step: int) -> RewardWeights:
        """The weights to train `step` with."""
        try:
            found = self._file.read_bytes()
        except FileNotFoundError:
            return self._weights
        except OSError as error:
            if self._readable:
                logger.error("%s cannot be read, the weights stay %s: %s", self._file, shown(self._weights), error)
            self._readable = False
            return self._weights
        self._readable = True
        if found == self._seen:
            return self._weights
        self._seen = found
        try:
            weights = RewardWeights.model_validate_json(found)
            refuse_unsafe(with_weights(self._rewards, weights))
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

    def warnings(self) -> list[str]:
        """What makes the mix unsafe that the last step was trained with."""
        return [f"UNSAFE REWARD MIX: {message}" for message in unsafe(with_weights(self._rewards, self._weights))]


def reweight(run: RunFolder, changes: Sequence[str]) -> tuple[RewardWeights, RewardWeights]:
    """Change weights, each as NAME=NUMBER, for the run's next step; returns the old ones and the new.

    Raises RecipeError for names and numbers that are none and where there is no run, and ValueError for a mix that can
    be gamed and where stage 3's folder is not that of the run's recipe.
    """
    recipe = load_recipe(run.recipe)
    _refuse_of_others(run, training_digest(recipe, 3))
    with _alone(run):
        before = weights_asked_for(run)
        weights = _changed(run, before, [f"rewards.weights.{change}" for change in changes])
        refuse_unsafe(with_weights(recipe.rewards, weights))
        _write(run.stage(3).weights, weights)
    return before, weights


def _refuse_of_others(run: RunFolder, digest: str) -> None:
    stage = run.stage(3)
    if stage.of_others(digest):
        raise ValueError(
            f"{stage.path} comes from other settings than {run.recipe}, and is set aside as stage 3 begins: ask again "
            "then, or have the weights in the recipe"
        )


def _changed(run: RunFolder, before: RewardWeights, changes: Sequence[str]) -> RewardWeights:
    kept = [f"rewards.weights.{name}={weight}" for name, weight in before.model_dump().items()]
    weights = load_recipe(run.recipe, [*kept, *changes]).rewards.weights
    refuse_null(changes)
    return weights


def _write(file: Path, weights: RewardWeights) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(weights.model_dump_json() + "\n", encoding="utf-8")
    aside.replace(file)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """One at a time: each starts from what the one before has written."""
    with (run.path / ".reweight.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # storage that knows no locks
            logger.warning("%s cannot be locked, two changes at once would not be noticed: %s", file.name, error)
        yield


def with_weights(rewards: Rewards, weights: RewardWeights) -> Rewards:
    """The same mix with other weights."""
    return rewards.model_copy(update={"weights": weights})


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
