"""All three stages, one after the other, each evaluated; what is finished is not done again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cluster.evaluation import evaluate, read_metrics
from cluster.metrics_table import metrics_table
from cluster.run_folder import RunFolder, digest
from cluster.stages import connect, prepare_data, read_file, run_rl, run_sft, seed_confidences, starting_model
from configs.load import write_resolved
from configs.schema import Recipe
from rewards.metrics import Metrics

_COMMON = ("seed", "data", "model", "response", "learner")


def run_pipeline(recipe: Recipe) -> str:
    """Run what is not finished; returns the table of the stages and the paths of the models."""
    run = _prepare(recipe)
    marks = _digests(recipe)
    for number in (1, 2, 3):
        stage = run.stage(number)
        if stage.finished(marks[number]):
            print(f"stage {number} is finished: {stage.model}")
            continue
        asyncio.run(run_stage(recipe, number))
        asyncio.run(evaluate_stage(recipe, number))
        stage.finish(marks[number])
    models = [f"stage {number}: {run.stage(number).model}" for number in (1, 2, 3)]
    return "\n".join([metrics_table(_collected(recipe)), *models])


def run_one_stage(recipe: Recipe, number: int) -> int:
    """One stage as a job of its own; returns the exit code."""
    run = _prepare(recipe)
    asyncio.run(run_stage(recipe, number))
    print(f"stage {number}: {run.stage(number).model}")
    return 0


def _prepare(recipe: Recipe) -> RunFolder:
    """Data built and checked before any model loads, the resolved recipe written, Ray joined."""
    prepare_data(recipe)
    _check_data(recipe)
    run = RunFolder.of(recipe)
    write_resolved(recipe, run.recipe)
    connect()
    return run


async def run_stage(recipe: Recipe, number: int) -> None:
    """One stage from its predecessor's model."""
    run = RunFolder.of(recipe)
    if number == 1:
        prompts = read_file(recipe, recipe.data.stage1, need_response=True, require_reference=False)
        await run_sft(recipe, 1, recipe.stage1, starting_model(recipe), prompts)
    elif number == 2:
        model = str(run.stage(1).model)
        await run_sft(recipe, 2, recipe.stage2, model, await seed_confidences(recipe, model))
    else:
        await run_rl(recipe, str(run.stage(2).model))


async def evaluate_stage(recipe: Recipe, number: int) -> None:
    """Evaluate a stage's model on every evaluation file."""
    stage = RunFolder.of(recipe).stage(number)
    files = {name: (read_file(recipe, file), stage.evaluation(name)) for name, file in recipe.data.evaluation.items()}
    found = await evaluate(recipe, str(stage.model), files, require_confidence=number > 1)
    print(metrics_table([(f"stage {number}, {name}", metrics["overall"]) for name, metrics in found.items()]))


def _check_data(recipe: Recipe) -> None:
    """Read every file before any model loads."""
    data = recipe.data
    read_file(recipe, data.stage1, need_response=True, require_reference=False)
    read_file(recipe, data.stage2, require_reference=False)
    for name in (data.stage3, *data.evaluation.values()):
        read_file(recipe, name)


def _digests(recipe: Recipe) -> dict[int, str]:
    first = digest(recipe, (*_COMMON, "stage1", "evaluation"))
    second = digest(recipe, (*_COMMON, "seeding", "stage2", "evaluation"), first)
    return {1: first, 2: second, 3: digest(recipe, (*_COMMON, "rl", "rewards", "evaluation"), second)}


def _collected(recipe: Recipe) -> list[tuple[str, Metrics]]:
    run = RunFolder.of(recipe)
    return [
        (
            f"stage {number}, {name}",
            read_metrics(Path(run.stage(number).evaluation(name)) / "metrics.json")["overall"],
        )
        for name in recipe.data.evaluation
        for number in (1, 2, 3)
    ]
