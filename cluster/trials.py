"""The trials of a tuning: each a stage 3 in a run's folder of its own, all from the stage-2 model of one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cluster.digests import is_finished, training_digest, training_rows
from cluster.run_folder import RunFolder
from cluster.sweep import Sweep, name_of, overrides_of
from configs.bundles import asked_by
from configs.derive import problems
from configs.load import load_recipe
from configs.schema import Recipe
from rewards.safety import refuse_unsafe

FOLDER = "tune"  # in the run's
_GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True)
class Trial:
    """A stage 3 with settings of its own."""

    settings: Mapping[str, str]  # by key, those that it was to try
    recipe: Recipe  # its output and data.root absolute

    @classmethod
    def of(cls, path: Path, sweep: Sweep, settings: Mapping[str, str]) -> Self:
        """The trial of these settings. Raises RecipeError, and ValueError where it cannot work or can be gamed."""
        given = load_recipe(path, [*sweep.fixed, *overrides_of(settings)])
        name = name_of(settings)
        if found := problems(given):
            raise ValueError("\n".join(f"trial {name} cannot work: {problem}" for problem in found))
        try:
            refuse_unsafe(given.rewards)
        except ValueError as error:
            raise ValueError(f"trial {name}: {error}") from error
        changes: dict[str, object] = {
            "name": f"{given.name}-{name}",
            "output": str(RunFolder.of(given).path / FOLDER / name),
            "data": given.data.model_copy(update={"root": str(Path(given.data.root).absolute())}),
            "engine": given.engine.model_copy(update={"workers_at_most": None}),  # what Tune reserves
        }
        if given.mirror.address is not None:  # where the run's own mirror has its folder
            address = f"{given.mirror.address.rstrip('/')}/{FOLDER}/{name}"
            changes["mirror"] = given.mirror.model_copy(update={"address": address})
        return cls(settings, given.model_copy(update=changes))

    @property
    def name(self) -> str:
        """What it is called: its settings."""
        return name_of(self.settings)

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return RunFolder.of(self.recipe)

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end with these settings, and evaluated."""
        return is_finished(self.recipe, 3)

    @property
    def given_up(self) -> bool:
        """Whether it was stopped as one without hope."""
        return given_up(self.recipe)

    def link(self, start: RunFolder) -> None:
        """Have the stages before the third be those of another run."""
        self.run.path.mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            link, there = self.run.stage(number).path, start.stage(number).path
            if there.exists() and not link.is_symlink():
                link.symlink_to(os.path.relpath(there, link.parent), target_is_directory=True)


def stop_request(tuning: Path) -> Path:
    """The file in the folder of all trials that asks them to stop."""
    return tuning / "stop"


def bundles(recipe: Recipe) -> list[dict[str, float]]:
    """What each of the actors that stage 3 starts asks Ray for."""
    asked = [each for each in asked_by(recipe) if each.bundle.cpus or each.bundle.gpus]
    return [{"CPU": each.bundle.cpus, "GPU": each.bundle.gpus} for each in asked for _ in range(each.count)]


def give_up(recipe: Recipe) -> None:
    """Mark a trial, which runs, as one without hope: it stops after its step."""
    RunFolder.of(recipe).stage(3).finish(_GIVEN_UP, training_digest(recipe, 3), training_rows(recipe, 3))


def hope_again(recipe: Recipe) -> None:
    """Take the mark back: the trial goes on."""
    RunFolder.of(recipe).stage(3).unfinish(_GIVEN_UP)


def given_up(recipe: Recipe) -> bool:
    """Whether a trial of these settings and rows is marked so."""
    return RunFolder.of(recipe).stage(3).finished(_GIVEN_UP, training_digest(recipe, 3), training_rows(recipe, 3))


def planned(path: Path, sweep: Sweep, samples: int | None, seed: int, *, stopping: bool) -> list[Trial]:
    """All trials of a sweep over the recipe of a file; `stopping`: those without hope are to be stopped.

    Raises RecipeError, and ValueError where a trial cannot work, and where trials could not be compared.
    """
    trials = [Trial.of(path, sweep, settings) for settings in sweep.trials(samples, seed)]
    if len({trial.name for trial in trials}) < len(trials):
        names = [trial.name for trial in trials]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two trials would be called {twice}: write their values so that the names differ")
    _refuse_different(trials, lambda recipe: (recipe.rewards.correctness, recipe.rewards.judge), "what is right", "")
    if stopping:
        _refuse_different(
            trials,
            lambda recipe: (recipe.rewards.reference, recipe.rewards.reading, recipe.rl.temperature),
            "how their accuracy in training is measured (rewards.reference, rewards.reading, rl.temperature)",
            ", or let all run to their end with --run-all",
        )
    return trials


def _refuse_different(trials: Sequence[Trial], told: Callable[[Recipe], object], what: str, otherwise: str) -> None:
    first, *others = trials
    for other in others:
        if told(other.recipe) != told(first.recipe):
            raise ValueError(
                f"trials {first.name} and {other.name} differ in {what} and cannot be compared: tune that by itself"
                f"{otherwise}"
            )
