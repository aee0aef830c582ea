"""Which model an export is made of, and the run that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.digests import STAGES, evaluation_digest, is_trained
from cluster.run_folder import RunFolder, StageFolder
from configs.load import load_recipe
from configs.schema import Recipe


@dataclass(frozen=True, slots=True)
class Source:
    """A stage of a run that ended in a model. The recipe's `output` is where the run is now."""

    run: RunFolder
    number: int
    recipe: Recipe

    @classmethod
    def of(cls, place: Path, number: int | None) -> Source:
        """The stage of that number of the run in `place`, its last finished one, or the one whose model is in `place`.

        Raises FileNotFoundError or ValueError where there is none.
        """
        if (place / "config.json").exists():
            found = next((n for n in STAGES if RunFolder(place.parents[1]).stage(n).model == place), None)
            if found is None or number not in (None, found):
                raise ValueError(f"{place} is not the model of a run's stage{'' if number is None else f' {number}'}")
            return cls.of(place.parents[1], found)
        run = RunFolder(place)
        if not run.recipe.exists():
            raise FileNotFoundError(f"{place} is neither a run's folder, with {run.recipe.name}, nor a stage's model")
        finished = [n for n in STAGES if number in (None, n) and run.stage(n).trained and run.stage(n).model.exists()]
        if not finished:
            raise FileNotFoundError(f"{place}: {'no stage' if number is None else f'stage {number} is not'} finished")
        return cls(run, finished[-1], load_recipe(run.recipe).model_copy(update={"output": str(place)}))

    @property
    def stage(self) -> StageFolder:
        """The stage's folder."""
        return self.run.stage(self.number)

    @property
    def states_confidence(self) -> bool:
        """Whether its responses do."""
        return self.number > 1

    @property
    def base(self) -> str:
        """The model that the run started from: a folder or a hub id."""
        path = self.recipe.model.path
        if path is None:
            return str(self.run.starting_model)
        return str(Path(path).absolute()) if Path(path).exists() else path

    def doubts(self) -> Iterator[str]:
        """What the run's folder leaves open of what is said of the model."""
        if not is_trained(self.recipe, self.number):
            yield (
                f"The run's recipe has other settings now than stage {self.number} was trained with, or was written by "
                "another version of Caliber: what is said here of data, rewards and form may not hold."
            )
        elif not self.stage.finished("evaluation", evaluation_digest(self.recipe, self.number)):
            yield "The stage was not evaluated to the end with the settings that the run's recipe has now."
