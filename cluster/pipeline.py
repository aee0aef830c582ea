"""The stages as jobs: each alone, or all three one after the other; what is finished is not done again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from cluster.evaluation import evaluate, read_metrics
from cluster.metrics_table import metrics_table
from cluster.pool import RolloutPool
from cluster.run_folder import RunFolder, digest
from cluster.sampling import rollout_pool
from cluster.stages import connect, prepare_data, read_file, run_rl, run_sft, seed_confidences, starting_model
from configs.load import write_resolved
from configs.schema import Recipe
from rewards.metrics import Metrics

_COMMON = ("seed", "data", "model", "response", "learner")


def run_pipeline(recipe: Recipe) -> str:
    """Run and evaluate what is not finished; returns the table of the stages and the paths of the models."""
    run = _prepare(recipe)
    asyncio.run(_all_stages(recipe, run))
    models = [f"stage {number}: {run.stage(number).model}" for number in (1, 2, 3)]
    return "\n".join([metrics_table(_collected(recipe, run)), *models])


def run_one_stage(recipe: Recipe, number: int) -> int:
    """One stage as a job of its own, from its predecessor's model; returns the exit code."""
    run = _prepare(recipe)
    asyncio.run(_train(recipe, run, number, None))
    print(f"stage {number}: {run.stage(number).model}")
    return 0


def _prepare(recipe: Recipe) -> RunFolder:
    """Data built and every file checked before any model loads, the resolved recipe written, Ray joined."""
    prepare_data(recipe)
    data = recipe.data
    read_file(recipe, data.stage1, need_response=True, require_reference=False)
    read_file(recipe, data.stage2, require_reference=False)
    for name in (data.stage3, *data.evaluation.values()):
        read_file(recipe, name)
    run = RunFolder.of(recipe)
    write_resolved(recipe, run.recipe)
    connect()
    return run


async def _all_stages(recipe: Recipe, run: RunFolder) -> None:
    marks = _digests(recipe)
    # Rollout workers take long to start: those that evaluate stage 2 go on to generate for stage 3,
    # and evaluate it with the weights they then hold.
    async with AsyncExitStack() as stack:
        pool: RolloutPool | None = None
        for number in (1, 2, 3):
            stage = run.stage(number)
            if not stage.finished("training", marks[number]):
                await _train(recipe, run, number, pool)
                stage.finish("training", marks[number])
            elif pool is not None:
                await stack.aclose()
                pool = None
            if not stage.finished("evaluation", marks[number]):
                if pool is None:
                    pool = await stack.enter_async_context(rollout_pool(recipe, str(stage.model)))
                await _evaluate(recipe, run, number, pool)
                stage.finish("evaluation", marks[number])
            if number == 1 and pool is not None:  # the learner of stage 2 needs the room
                await stack.aclose()
                pool = None


async def _train(recipe: Recipe, run: RunFolder, number: int, pool: RolloutPool | None) -> None:
    """One stage; `pool` holds the weights of stage 2, or is None."""
    if number == 1:
        prompts = read_file(recipe, recipe.data.stage1, need_response=True, require_reference=False)
        await run_sft(recipe, 1, recipe.stage1, starting_model(recipe), prompts)
    elif number == 2:
        model = str(run.stage(1).model)
        await run_sft(recipe, 2, recipe.stage2, model, await seed_confidences(recipe, model))
    elif pool is not None:
        await run_rl(recipe, str(run.stage(2).model), pool)
    else:
        model = str(run.stage(2).model)
        async with rollout_pool(recipe, model) as own:
            await run_rl(recipe, model, own)


async def _evaluate(recipe: Recipe, run: RunFolder, number: int, pool: RolloutPool) -> None:
    stage = run.stage(number)
    files = {name: (read_file(recipe, file), stage.evaluation(name)) for name, file in recipe.data.evaluation.items()}
    if number == 1:
        low = recipe.evaluation.stage1_temperature
        found = await evaluate(recipe, pool, files, temperature=low, require_confidence=False)
    else:
        found = await evaluate(recipe, pool, files)
    table = metrics_table([(f"stage {number}, {name}", metrics["overall"]) for name, metrics in found.items()])
    print(table, flush=True)


def _digests(recipe: Recipe) -> dict[int, str]:
    first = digest(recipe, (*_COMMON, "stage1", "evaluation"))
    second = digest(recipe, (*_COMMON, "seeding", "stage2", "evaluation"), first)
    return {1: first, 2: second, 3: digest(recipe, (*_COMMON, "rl", "rewards", "evaluation"), second)}


def _collected(recipe: Recipe, run: RunFolder) -> list[tuple[str, Metrics]]:
    return [
        (f"stage {number}, {name}", read_metrics(run.stage(number).evaluation(name) / "metrics.json")["overall"])
        for name in recipe.data.evaluation
        for number in (1, 2, 3)
    ]
