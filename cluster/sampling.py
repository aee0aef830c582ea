"""Responses of a model to prompts, outside of training: for evaluation and for seeding confidences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import ray

from cluster.pool import RolloutPool
from configs.schema import Engine
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.trajectory import Group
from rollout.worker import Visit

_VISITS_AT_ONCE = 64  # a worker: keeps the engine's batch full without queueing the whole file on it


async def sample_responses(
    model_dir: str,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    sampling: SamplingSettings,
    engine: Engine,
    limits: ImageLimits,
    *,
    seed: int,
    seconds_per_wait: float,
) -> list[Group]:
    """A group for each prompt, in their order. Starts rollout workers and ends them."""
    pool = await RolloutPool.start(model_dir, engine, limits, seed, seconds_per_wait)
    room = asyncio.Semaphore(_VISITS_AT_ONCE * engine.workers)

    async def visit(number: int, prompt: Prompt) -> Group:
        async with room:
            visited = Visit(number, prompt, prompt.label, samples_per_prompt, time.time())
            reference: ray.ObjectRef = await pool.generate(visited, sampling)
            return decode_group(await reference)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(visit(number, prompt)) for number, prompt in enumerate(prompts)]
    finally:
        await pool.close()
    return [task.result() for task in running]
