"""Use a model: an answer and a confidence for each row of a file, as soon as each is there.

from cluster.predicting import Predicting, predict

rows = predict(Path("outputs/words"), Path("mine.jsonl"), Predicting(samples=5))
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.finished_model import finished_model
from cluster.held_out import MAPS, Fitted, fit, refuse_unfit
from cluster.pool import RolloutPool
from cluster.sampling import RolloutWorkers, sample_each, sample_responses
from cluster.stages import connect, read_file
from cluster.stopping import until_told_to_stop
from cluster.voted import Voted, vote_of
from configs.schema import Recipe
from rewards.abstention import Guarantee
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.trajectory import Group

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predicting:
    """How answers are come by. Raises ValueError for what cannot be, or would be of no use."""

    samples: int = 1  # responses to each prompt, whose vote is the answer
    temperature: float | None = None  # None: the recipe's, for evaluation or, of several samples, of stage 3
    held_out: Path | None = None  # file of rows with references, drawn as the rows to predict are, and others than them
    guarantee: Guarantee | None = None  # withhold answers, with a threshold fitted on that file
    recalibrate: str | None = None  # one of `cluster.held_out.MAPS`, fitted on that file

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"got {self.samples} samples, expected 1 or more")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same: take one, or a temperature")
        if self.recalibrate is not None and self.recalibrate not in MAPS:
            raise ValueError(f"got the map {self.recalibrate!r}, expected one of {', '.join(MAPS)}")
        fitted = self.guarantee is not None or self.recalibrate is not None
        if fitted and self.held_out is None:
            raise ValueError("a threshold or a map is fitted on held-out rows with references: name their file")
        if self.held_out is not None and not fitted:
            raise ValueError(f"nothing is fitted on {self.held_out}: ask for a risk or a map, or leave it out")

    def sampling(self, recipe: Recipe) -> SamplingSettings:
        """How a response is sampled."""
        of_recipe = recipe.evaluation.temperature if self.samples == 1 else recipe.rl.temperature
        temperature = of_recipe if self.temperature is None else self.temperature
        return SamplingSettings(temperature, recipe.evaluation.response_tokens)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer."""

    id: str
    answer: str | None  # None: no response is well formed, or the row cannot be answered
    confidence: float | None  # in [0, 1], after the map where there is one
    response: str | None = None  # the first that gives the answer; None: the row cannot be answered
    abstained: bool | None = None  # None: not asked for
    raw_confidence: float | None = None  # before the map; None: there is no map
    votes: Mapping[str, float] = field(default_factory=dict)  # summed confidences by answer; {} for a single sample
    malformed: tuple[str, ...] = ()  # why, of the responses that are
    error: str | None = None  # why the row cannot be answered

    def to_json(self) -> str:
        """A line of JSON: `id`, `answer` and `confidence`, and of the other keys those that say something."""
        keys = {"id", "answer", "confidence"}
        told = {name: value for name, value in asdict(self).items() if name in keys or value not in (None, {}, ())}
        return json.dumps(told, ensure_ascii=False)


def predict(
    model: Path,
    data: Path,
    settings: Predicting | None = None,
    *,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    each: Callable[[Prediction], object] | None = None,
    fitted: Callable[[Fitted], None] | None = None,
) -> list[Prediction]:
    """The predictions of a JSONL file, in its rows' order; `each` is called with every one as soon as it is there.

    `model`, `recipe` and `overrides`: see `finished_model`. Rows need no references. `fitted` is called with what was
    fitted, before any row is predicted. A row that the model can never answer, being too long, has an `error`.
    Before the model is loaded it raises DataError with all bad rows of both files, and ValueError for a matcher that
    cannot be used where something is fitted; EngineError where the model fails.
    """
    settings = Predicting() if settings is None else settings
    directory, chosen = finished_model(model, recipe, overrides)
    prompts = _read(chosen, data, require_reference=False)
    held_out: list[Prompt] = []
    if settings.held_out is not None:
        if settings.held_out.samefile(data):
            raise ValueError(f"{data} is to be predicted: what is fitted on it says nothing of it; give other rows")
        held_out = _read(chosen, settings.held_out, require_reference=True)
        refuse_unfit(chosen, str(settings.held_out), held_out)
    connect(chosen.name)

    async def job() -> list[Prediction]:
        async with until_told_to_stop(), RolloutWorkers(chosen) as workers:
            use = _Use(chosen, settings, await workers.holding(str(directory)))
            found = await use.fit(held_out)
            if fitted is not None:
                fitted(found)
            return await use.predict(data, prompts, found, each)

    return asyncio.run(job())


def _read(recipe: Recipe, file: Path, *, require_reference: bool) -> list[Prompt]:
    """The prompts of a file; its pictures lie beside it, or under the recipe's data where it does."""
    file, root = file.absolute(), Path(recipe.data.root).absolute()
    root = root if file.is_relative_to(root) else file.parent
    return read_file(recipe, str(file), root=root, require_reference=require_reference)


@dataclass(frozen=True, slots=True)
class _Use:
    """A model that is loaded, and how it is asked."""

    recipe: Recipe
    settings: Predicting
    pool: RolloutPool

    async def fit(self, prompts: Sequence[Prompt]) -> Fitted:
        """What held-out prompts say; nothing where there are none."""
        if not prompts:
            return Fitted()
        sampling, samples = self.settings.sampling(self.recipe), self.settings.samples
        groups = await sample_responses(self.pool, prompts, samples, sampling)
        voted = [vote_of(prompt, group, self.recipe) for prompt, group in zip(prompts, groups, strict=True)]
        return fit(self.recipe, prompts, voted, self.settings.guarantee, self.settings.recalibrate)

    async def predict(
        self, data: Path, prompts: Sequence[Prompt], fitted: Fitted, each: Callable[[Prediction], object] | None
    ) -> list[Prediction]:
        """Predictions in the prompts' order; `each` gets them as they come."""
        found: dict[int, Prediction] = {}

        def take(number: int, prediction: Prediction) -> None:
            found[number] = prediction
            if each is not None:
                each(prediction)

        def done(number: int, group: Group) -> None:
            take(number, _prediction(prompts[number], vote_of(prompts[number], group, self.recipe), fitted))

        def unanswerable(number: int, error: ValueError) -> None:
            row = prompts[number].prompt_id
            logger.warning("%s: row %r cannot be answered: %s", data, row, error)
            take(number, Prediction(row, None, None, abstained=fitted.abstains(None), error=str(error)))

        sampling, samples = self.settings.sampling(self.recipe), self.settings.samples
        await sample_each(self.pool, prompts, samples, sampling, done, unanswerable)
        return [found[number] for number in range(len(prompts))]


def _prediction(prompt: Prompt, voted: Voted, fitted: Fitted) -> Prediction:
    stated = None if voted.vote is None else voted.vote.confidence
    return Prediction(
        id=prompt.prompt_id,
        answer=None if voted.vote is None else voted.vote.answer,
        confidence=None if stated is None else fitted.better(stated),
        response=voted.response,
        abstained=fitted.abstains(stated),
        raw_confidence=None if fitted.recalibrate is None else stated,
        votes=voted.vote.votes if voted.vote is not None and voted.samples > 1 else {},
        malformed=voted.malformed,
    )
