"""The reward service: groups are dealt to reward workers, and scored by another one where a worker dies or hangs.

A group waits here for a worker with room, so that its time limit counts what it takes to score it and nothing else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from cluster.actor_names import next_name
from cluster.records import GroupRecord
from cluster.reward_actor import RewardActor
from cluster.room import Room
from cluster.supervisor import Supervisor, Worker
from cluster.waiting import within
from configs.bundles import reward_workers
from configs.schema import Recipe
from rollout.worker import Visit

_SETTING = "reward_service.seconds_per_group"


class RewardService:
    """Reward workers under supervision."""

    def __init__(self, recipe: Recipe, model_dir: str, rollouts: Path) -> None:
        rollouts.mkdir(parents=True, exist_ok=True)
        self._recipe = recipe
        self._model_dir = model_dir
        self._rollouts = rollouts
        self._files: set[Path] = set()  # that were given to workers
        self._at_once = groups_at_once(recipe)
        names = [f"reward-{index}" for index in range(recipe.reward_service.workers)]
        self._supervisor = Supervisor(
            names,
            self._make,
            self._ready,
            self._at_once,
            room=self._room,
            seconds_for_room=recipe.rl.seconds_per_wait,
        )
        self._failures: Counter[str] = Counter()
        self._unwritten = 0

    async def start(self) -> None:
        """Start all workers, at once. Raises what a worker's matcher says of itself, or NoWorkers."""
        await self._supervisor.start()

    @property
    def counts(self) -> Mapping[str, float]:
        """The workers' load; since the start: workers replaced, groups not on disk, responses unscored by the error."""
        failures = {f"unscored/{cause}": float(number) for cause, number in self._failures.items()}
        counts = {
            "reward_worker_restarts": float(self._supervisor.restarts),
            "groups_unwritten": float(self._unwritten),
        }
        return {**counts, **failures, **self._supervisor.load("reward")}

    async def score(self, encoded: ray.ObjectRef, visit: Visit) -> tuple[GroupRecord, ray.ObjectRef]:
        """The record of the scored group and a reference to it; EngineError where no worker survives it."""

        async def score(worker: Worker) -> tuple[GroupRecord, ray.ObjectRef]:
            record, group = worker.actor.score.options(num_returns=2).remote(encoded, visit.prompt)
            return await self._within(record, f"{worker.name} to score group {visit.group_id}"), group

        record, group = await self._supervisor.do(score, f"group {visit.group_id}")
        self._unwritten += not record.written
        self._failures.update(s.failure.partition(":")[0] for s in record.samples if s.failure is not None)
        return record, group

    async def close(self) -> None:
        """End the workers' processes, their files closed."""
        await self._supervisor.close(self._recipe.reward_service.seconds_per_group, _SETTING)

    def _room(self, worker: Worker) -> Room:
        return Room(reward_workers(self._recipe.reward_service).one(worker.name))

    def _make(self, worker: Worker) -> Any:
        assert worker.room is not None, "it is asked for before"
        options = RewardActor.options(
            name=next_name(worker.name),
            max_concurrency=self._at_once if self._recipe.rewards.judge else 1,
            **worker.room.options(),
        )
        return options.remote(self._model_dir, self._recipe, str(self._new_file(worker.name)))

    def _new_file(self, worker: str) -> Path:
        """One that no other start of a worker has, in this job or before it.

        A worker that was given up, or whose driver was killed, may still be at its last group; and what was damaged on
        the disk is left as it is.
        """
        names = itertools.chain([worker], (f"{worker}.{number}" for number in itertools.count(1)))
        files = (self._rollouts / f"{name}.rollouts" for name in names)
        file = next(file for file in files if file not in self._files and not file.exists())
        self._files.add(file)
        return file

    async def _ready(self, worker: Worker) -> None:
        await within(worker.actor.start.remote(), self._recipe.rl.seconds_per_wait, f"{worker.name} to start")

    async def _within(self, reference: ray.ObjectRef, what: str) -> Any:
        return await within(reference, self._recipe.reward_service.seconds_per_group, what, _SETTING)


def groups_at_once(recipe: Recipe) -> int:
    """Groups a reward worker has at a time: of those that wait for a judge as many as its requests are enough for."""
    if recipe.rewards.judge is not None:
        return max(1, recipe.rewards.judge.requests_at_once // recipe.rl.samples_per_prompt)
    return 1 if recipe.rewards.own_scorer else 2  # with the built-in ones the next is on its way while one is scored
