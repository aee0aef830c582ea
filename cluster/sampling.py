"""Responses of a model to prompts, outside of training: for evaluation and for seeding confidences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import ray

from cluster.pool import RolloutPool
from configs.schema import GroupsPerWorker, Lora, Recipe
from learner.architecture import with_targets
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.engine import SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.prompts import Prompt
from rollout.trajectory import Group
from rollout.worker import Visit


class RolloutWorkers:
    """At most one pool, kept from one use to the next as long as it holds the weights that are asked for.

    Rollout workers take long to start: those that evaluate stage 1 go on to seed confidences, and those
    that evaluate stage 2 to generate for stage 3. Workers that take adapters alone are for stage 3 only: they cost
    more, and what it ends in is evaluated as it lies on disk, merged and rounded.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._pool: RolloutPool | None = None
        self._held = ""
        self._adapters: Lora | None = None  # what the pool takes beside the weights

    async def holding(self, model_dir: str, *, to_train: bool = False) -> RolloutPool:
        """Workers with the weights of a Hugging Face directory; `to_train`: that take up what stage 3 sends."""
        adapters = self._recipe.adapters_alone if to_train else None
        if self._pool is None or (self._held, self._adapters) != (model_dir, adapters):
            await self.close()
            self._pool = await self._start(model_dir, adapters)
            self._held, self._adapters = model_dir, adapters
        return self._pool

    async def _start(self, model_dir: str, adapters: Lora | None) -> RolloutPool:
        recipe = self._recipe
        limits = ImageLimits.of(recipe.model, recipe.data)
        if adapters is not None:
            adapters = with_targets(adapters, Path(model_dir))
        setup = EngineSetup(
            model_dir,
            recipe.engine,
            limits,
            recipe.seed,
            watched=recipe.rl.groups_per_worker is GroupsPerWorker.ADAPTIVE,
            exported=recipe.monitoring.engine_metrics,
            adapters=adapters,
        )
        return await RolloutPool.start(setup, recipe.rl.seconds_per_wait, recipe.transfer.seconds_per_update)

    def now_hold(self, model_dir: str) -> None:
        """The workers' weights were changed to those of another directory, which has no adapters beside them."""
        if self._adapters is not None:
            return  # merged they are rounded otherwise: whoever wants the directory's gets other workers
        if self._pool is not None:
            self._pool.now_hold(model_dir)
        self._held = model_dir

    async def close(self) -> None:
        """End the workers, if there are any."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def sample_responses(
    pool: RolloutPool, prompts: Sequence[Prompt], samples_per_prompt: int, sampling: SamplingSettings
) -> list[Group]:
    """A group for each prompt, in their order."""
    groups: dict[int, Group] = {}
    await sample_each(pool, prompts, samples_per_prompt, sampling, groups.__setitem__)
    return [groups[number] for number in range(len(prompts))]


async def sample_each(
    pool: RolloutPool,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    sampling: SamplingSettings,
    done: Callable[[int, Group], None],
    unanswerable: Callable[[int, ValueError], None] | None = None,
) -> None:
    """Give `done` each prompt's number and its group as soon as it is there.

    A prompt that cannot be answered is given to `unanswerable`, where there is one; else its ValueError ends the rest.
    """
    room = asyncio.Semaphore(pool.enough(samples_per_prompt))

    async def visit(number: int, prompt: Prompt) -> None:
        async with room:
            visited = Visit(number, prompt, prompt.label, samples_per_prompt, time.time())
            try:
                reference: ray.ObjectRef = await pool.generate(visited, sampling)
            except ValueError as error:
                if unanswerable is None:
                    raise
                unanswerable(number, error)
                return
            group = decode_group(await reference)
        done(number, group)

    async with asyncio.TaskGroup() as tasks:
        for number, prompt in enumerate(prompts):
            tasks.create_task(visit(number, prompt))
