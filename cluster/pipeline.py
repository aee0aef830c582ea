"""The stages as jobs: each alone, or all three one after the other; what is finished is not done again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.digests import (
    STAGES,
    evaluation_digest,
    evaluation_rows,
    training_digest,
    training_rows,
    training_settings,
)
from cluster.evaluation import Evaluated, evaluate, model_tokenizer
from cluster.final_table import final_table
from cluster.job_book import EVALUATING, SEEDING, TRAINING, JobBook, working_in
from cluster.learner_loss import through_losses
from cluster.matchers import refuse_unusable
from cluster.metrics_table import metrics_table
from cluster.mirror import mirrored
from cluster.mixed_pictures import refuse_mixed
from cluster.prompt_lengths import PromptLengths
from cluster.ray_job import losses_ahead
from cluster.room import Room
from cluster.run_folder import RunFolder
from cluster.sampling import RolloutWorkers
from cluster.stages import connect, prepare_data, read_file, run_rl, run_sft, seed_confidences
from cluster.starting_model import starting_model
from cluster.stopping import stopped_before_it_began, until_told_to_stop
from cluster.wandb_evaluation import tell_wandb
from configs.bundles import learner_ranks
from configs.load import write_resolved
from configs.schema import Recipe
from learner.architecture import refuse_tree_masks

logger = logging.getLogger(__name__)


def run_pipeline(recipe: Recipe) -> str:
    """Run and evaluate what is not finished; returns the table of the stages and the paths of the models."""
    run = _run(recipe, STAGES, evaluated=True)
    models = [f"stage {number}: {run.stage(number).model}" for number in STAGES]
    return "\n".join([final_table(run, list(recipe.data.evaluation)), *models])


def run_one_stage(recipe: Recipe, number: int, *, evaluated: bool = False) -> int:
    """One stage as a job of its own, from its predecessor's model; returns the exit code.

    Raises FileNotFoundError where that model is not there.
    """
    refuse_without_start(recipe, number)
    run = _run(recipe, (number,), evaluated=evaluated)
    print(f"stage {number}: {run.stage(number).model}")
    return 0


def refuse_without_start(recipe: Recipe, number: int) -> None:
    """Raise FileNotFoundError where the model that a stage starts from is not there."""
    if number > 1 and not (before := RunFolder.of(recipe).stage(number - 1).model).exists():
        raise FileNotFoundError(
            f"stage {number} starts from {before}, which is not there: run stage {number - 1} first"
        )


async def reinforce_and_evaluate(recipe: Recipe) -> None:
    """Stage 3 as a job on an event loop that is there, in a process that has joined Ray."""
    run = RunFolder.of(recipe)
    with working_in(run.path) as book:
        await _stages(recipe, run, (3,), book, evaluated=True)


def _run(recipe: Recipe, numbers: Sequence[int], *, evaluated: bool) -> RunFolder:
    run = RunFolder.of(recipe)
    for loss in losses_ahead(run.path, recipe):
        logger.warning(loss)
    with working_in(run.path) as book:
        with stopped_before_it_began():
            _prepare(recipe, run)
        asyncio.run(_stages(recipe, run, numbers, book, evaluated=evaluated))
    return run


def _prepare(recipe: Recipe, run: RunFolder) -> None:
    """Data and matcher checked before any model loads, the resolved recipe written, Ray joined."""
    check_data(recipe)
    write_resolved(recipe, run.recipe)
    connect(recipe.name)


def check_data(recipe: Recipe) -> None:
    """Build the data where they are not there; read all files, and hold stage 3's against the matcher."""
    prepare_data(recipe)
    data = recipe.data
    refuse_mixed(recipe, data.stage1, read_file(recipe, data.stage1, need_response=True, require_reference=False))
    refuse_mixed(recipe, data.stage2, read_file(recipe, data.stage2, require_reference=False))
    for name in data.evaluation.values():
        read_file(recipe, name)
    prompts = read_file(recipe, data.stage3)
    refuse_mixed(recipe, data.stage3, prompts)
    refuse_unusable(recipe, prompts)


async def _stages(recipe: Recipe, run: RunFolder, numbers: Sequence[int], book: JobBook, *, evaluated: bool) -> None:
    lengths = PromptLengths(recipe, numbers, evaluated=evaluated)
    async with until_told_to_stop(), mirrored(run.path, recipe.mirror), RolloutWorkers(recipe) as workers:
        job = _Job(recipe, run, workers, book, lengths)
        for number in numbers:
            await job.train(number)
            if evaluated:
                await job.evaluate(number)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the stages of one process have in common."""

    recipe: Recipe
    run: RunFolder
    workers: RolloutWorkers
    book: JobBook
    lengths: PromptLengths

    async def train(self, number: int) -> None:
        """Train a stage, unless that is done; a stage that was interrupted goes on from its checkpoint."""
        stage = self.run.stage(number)
        mark = training_digest(self.recipe, number), await self._rows(training_rows, number)
        if stage.finished("training", *mark):
            return
        if number > 1:
            await self._check(str(self.run.stage(number - 1).model))
        elif self.recipe.model.path is not None and Path(self.recipe.model.path).exists():
            await self._check(self.recipe.model.path)
        stage.claim(*mark, training_settings(self.recipe, number))
        self.book.now(SEEDING if number == 2 else TRAINING, number)
        await (self._reinforce() if number == 3 else self._fine_tune(number))
        stage.finish("training", *mark)

    async def _check(self, model_dir: str) -> None:
        """Raise ValueError where the recipe, or a prompt, is not for the model that is to be trained."""
        await asyncio.to_thread(refuse_tree_masks, model_dir, self.recipe)
        await self.lengths.check(model_dir)

    async def evaluate(self, number: int) -> None:
        """Evaluate a stage, unless that is done."""
        stage = self.run.stage(number)
        mark = evaluation_digest(self.recipe, number), await self._rows(evaluation_rows, number)
        if stage.finished("evaluation", *mark):
            return
        await self.lengths.check(str(stage.model))
        self.book.now(EVALUATING, number)
        await self._evaluate(number)
        stage.finish("evaluation", *mark)

    async def _rows(self, named: Callable[[Recipe, int], str | None], number: int) -> str | None:
        """As the files are now. They may be large."""
        return await asyncio.to_thread(named, self.recipe, number)

    async def _fine_tune(self, number: int) -> None:
        recipe = self.recipe
        if number == 1:
            settings, start = recipe.stage1, starting_model(recipe)
            await self._check(start)  # where it was not there before
            prompts = read_file(recipe, recipe.data.stage1, need_response=True, require_reference=False)
        else:
            settings, start = recipe.stage2, str(self.run.stage(1).model)
            prompts = await seed_confidences(recipe, start, self.workers)
            self.book.now(TRAINING)
        await self.workers.close()  # the learner needs the room
        await through_losses(
            self.run.stage(number).checkpoints,
            lambda: run_sft(recipe, number, settings, start, prompts),
            self.workers.close,
        )

    async def _reinforce(self) -> None:
        recipe, start, stage = self.recipe, str(self.run.stage(2).model), self.run.stage(3)

        async def reinforce() -> None:
            with Room(learner_ranks(recipe.learner)) as room:
                # Before that of workers that are yet to start: they go where there is room, its ranks share nodes.
                await room.held(asyncio.timeout(recipe.rl.seconds_per_wait))
                await run_rl(recipe, start, await self.workers.holding(start, to_train=True), room)

        # Closed after a loss: they hold newer weights than the checkpoint that the learner goes on from.
        await through_losses(stage.checkpoints, reinforce, self.workers.close)
        self.workers.now_hold(str(stage.model))

    async def _evaluate(self, number: int) -> None:
        recipe, stage = self.recipe, self.run.stage(number)
        files = {
            name: (read_file(recipe, file), stage.evaluation(name)) for name, file in recipe.data.evaluation.items()
        }
        pool, tokenizer = await self.workers.holding(str(stage.model)), model_tokenizer(str(stage.model))
        evaluated: dict[str, Evaluated] = {}
        found = await evaluate(
            recipe,
            pool,
            tokenizer,
            files,
            temperature=recipe.evaluation.stage1_temperature if number == 1 else None,
            require_confidence=number != 1,
            shown=evaluated.__setitem__,
        )
        steps = {1: recipe.stage1.steps, 2: recipe.stage2.steps, 3: recipe.rl.steps}[number]
        tell_wandb(stage.path, f"stage{number}", steps, recipe, evaluated)
        table = metrics_table([(f"stage {number}, {name}", metrics["overall"]) for name, metrics in found.items()])
        print(table, flush=True)
