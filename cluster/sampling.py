"""Responses of a model to prompts, outside of training: for evaluation and for seeding confidences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import ray

from cluster.pool import RolloutPool
from configs.schema import Recipe
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.trajectory import Group
from rollout.worker import Visit

_VISITS_AT_ONCE = 64  # a worker: keeps the engine's batch full without queueing the whole file on it


@asynccontextmanager
async def rollout_pool(recipe: Recipe, model_dir: str) -> AsyncIterator[RolloutPool]:
    """Rollout workers for a model, ended on leaving."""
    limits = ImageLimits.of(recipe.model, recipe.data)
    pool = await RolloutPool.start(model_dir, recipe.engine, limits, recipe.seed, recipe.rl.seconds_per_wait)
    try:
        yield pool
    finally:
        await pool.close()


async def sample_responses(
    pool: RolloutPool, prompts: Sequence[Prompt], samples_per_prompt: int, sampling: SamplingSettings
) -> list[Group]:
    """A group for each prompt, in their order."""
    room = asyncio.Semaphore(_VISITS_AT_ONCE * pool.size)

    async def visit(number: int, prompt: Prompt) -> Group:
        async with room:
            visited = Visit(number, prompt, prompt.label, samples_per_prompt, time.time())
            reference: ray.ObjectRef = await pool.generate(visited, sampling)
            return decode_group(await reference)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(visit(number, prompt)) for number, prompt in enumerate(prompts)]
    return [task.result() for task in running]
