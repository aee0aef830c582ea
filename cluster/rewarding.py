"""The reward service: scorers on Ray actors, restarted where they die or hang."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from cluster.records import GroupRecord
from cluster.reward_actor import RewardActor
from cluster.waiting import WaitedTooLong, within
from configs.schema import Recipe
from rollout.engine import EngineError
from rollout.worker import Visit

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # times a group is given to a scorer


class RewardService:
    """Deals groups to the scorers in turn."""

    def __init__(self, recipe: Recipe, model_dir: str, rollouts: Path) -> None:
        rollouts.mkdir(parents=True, exist_ok=True)
        self._recipe = recipe
        self._arguments = (model_dir, recipe)
        self._rollouts = rollouts
        self._actors: list[Any] = [self._new(index) for index in range(recipe.reward_service.workers)]
        self._next = 0

    async def start(self) -> None:
        """Wait until all scorers are there."""
        waits = [
            within(actor.ready.remote(), self._recipe.rl.seconds_per_wait, f"reward-{index} to start")
            for index, actor in enumerate(self._actors)
        ]
        await asyncio.gather(*waits)

    async def score(self, encoded: ray.ObjectRef, visit: Visit) -> tuple[GroupRecord, ray.ObjectRef]:
        """The record of the scored group and a reference to it; EngineError where no scorer survives it."""
        for _ in range(ATTEMPTS):
            index = self._next = (self._next + 1) % len(self._actors)
            actor = self._actors[index]
            record, group = actor.score.options(num_returns=2).remote(encoded, visit.prompt)
            what = f"reward-{index} to score group {visit.group_id}"
            try:
                return await self._within(record, what), group
            except (RayActorError, WaitedTooLong) as error:
                if actor is self._actors[index]:  # the first to notice replaces it
                    logger.warning("reward-%d is lost and will be replaced: %s", index, error)
                    ray.kill(actor)
                    self._actors[index] = self._new(index)
        raise EngineError(f"group {visit.group_id}: {ATTEMPTS} scorers died or hung over it")

    async def close(self) -> None:
        """End the scorers' processes, their files closed."""
        for index, actor in enumerate(self._actors):
            try:
                await self._within(actor.close.remote(), f"reward-{index} to close")
            except (RayActorError, WaitedTooLong) as error:
                logger.warning("reward-%d did not close by itself: %s", index, error)
            ray.kill(actor)

    async def _within(self, reference: ray.ObjectRef, what: str) -> Any:
        seconds = self._recipe.reward_service.seconds_per_group
        return await within(reference, seconds, what, "reward_service.seconds_per_group")

    def _new(self, index: int) -> Any:
        options = RewardActor.options(  # type: ignore[attr-defined]  # ray.remote's class
            num_cpus=self._recipe.reward_service.cpus_per_worker
        )
        return options.remote(*self._arguments, str(self._rollouts / f"reward-{index}.rollouts"))
