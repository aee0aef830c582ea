"""One run of stage 3 around simulated engines and a simulated learner; controller, pool and reward service are real.

A `Stage3` starts its Ray cluster and what many runs share; `Stage3.run` is one run.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster

from benchmarks.processes import cpu_seconds, driver_mib
from benchmarks.simulated_cluster import Fleet, SimulatedHost, SimulatedLearner, simulated_pool
from benchmarks.step_watch import StepWatch
from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.job_checkpoints import JobCheckpoints
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.rewarding import RewardService
from cluster.rollout_actor import CALLS_AT_ONCE
from cluster.run_log import Metrics
from cluster.visits import Visits
from configs.load import load_recipe
from configs.schema import Recipe
from learner.scratch import train_tokenizer
from rewards.parse import OUTER_TAGS
from rollout.prompts import Message, Prompt
from rollout.simulated_text import WORDS

DEMO = Path(__file__).parents[1] / "configs" / "emoji" / "demo.yaml"
SAMPLES = 8  # of a group
ANSWERS = ("joy", "fear", "anger", "sadness")
PROMPTS = [
    Prompt(f"prompt-{n}", "mood", (Message("user", "Which mood?"),), (), ANSWERS, ANSWERS[0], {"joy": 3, "fear": 1})
    for n in range(1000)
]
_VOCABULARY = 1024
_ELSEWHERE = "elsewhere"  # a resource of the raylets that are not the driver's
_OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """One run: so many steps are measured after some that are not."""

    fleet: Fleet
    prompts_per_step: int
    max_policy_lag: int
    steps: int
    warm_up_steps: int = 3
    groups_per_worker: int | None = None
    response_tokens: int = 100_000
    seconds_per_step: float = 0.0  # of the learner


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to over its measured steps."""

    trajectories: int
    seconds: float
    tokens: float  # of a response, the mean
    cpu_seconds: Mapping[str, float]  # by kind of process
    driver_mib: list[tuple[int, float]]  # after so many trajectories, warm-up included
    counts: Mapping[str, float]  # dropped groups, replaced workers

    @property
    def rate(self) -> float:
        """Trajectories a second."""
        return self.trajectories / self.seconds

    @property
    def token_rate(self) -> float:
        """Response tokens a second."""
        return self.rate * self.tokens


class RunWatch(StepWatch):
    """Notes times, memory and tokens."""

    def __init__(self, folder: Path, recipe: Recipe, settings: Settings) -> None:
        super().__init__(folder, recipe, settings.warm_up_steps + settings.steps)
        self._settings = settings
        self._marks: list[tuple[float, Mapping[str, float]]] = []
        self._memory: list[tuple[int, float]] = []
        self._tokens: list[float] = []
        self._last_line: Metrics = {}

    def seen(self, metrics: Metrics, step: int) -> None:
        """See `StepWatch`."""
        first, last = self._settings.warm_up_steps, self._settings.warm_up_steps + self._settings.steps
        self._memory.append((step * self._settings.prompts_per_step * SAMPLES, driver_mib()))
        if step > first:
            self._tokens.append(metrics["response_tokens"] or 0.0)
        if step in (first, last):
            self._marks.append((time.perf_counter(), cpu_seconds()))
        self._last_line = metrics

    def run(self) -> Run:
        """What there was to see."""
        (begun, before), (ended, after) = self._marks
        counts = {name: value for name, value in self._last_line.items() if value and name.startswith(_COUNTS)}
        return Run(
            trajectories=self._settings.steps * self._settings.prompts_per_step * SAMPLES,
            seconds=ended - begun,
            tokens=sum(self._tokens) / len(self._tokens),
            cpu_seconds={kind: after[kind] - before.get(kind, 0.0) for kind in after},
            driver_mib=self._memory,
            counts=counts,
        )


_COUNTS = ("dropped/", "worker_restarts", "reward_worker_restarts", "unscored", "malformed")


@dataclass
class Stage3:
    """A Ray cluster with a learner, reward workers, and hosts for engines."""

    folder: Path
    model_dir: str
    hosts: list[Any]
    learner: Any
    rewards: RewardService
    _number: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    @asynccontextmanager
    async def started(
        cls, folder: Path, raylets: int, hosts: int, reward_workers: int, overrides: Sequence[str] = ()
    ) -> AsyncIterator[Stage3]:
        """With more than one raylet the driver's has the learner, and the others the engines and reward workers.

        `overrides` change settings of the reward workers.
        """
        model = str(folder / "model")
        recipe = load_recipe(DEMO, [f"reward_service.workers={reward_workers}", *overrides])
        _train_tokenizer(recipe, model)
        async with AsyncExitStack() as cleanup:
            cleanup.enter_context(_own_ray(folder, raylets))
            elsewhere = {"resources": {_ELSEWHERE: 1}} if raylets > 1 else {}
            options = {"num_cpus": 0, "max_concurrency": CALLS_AT_ONCE, **elsewhere}
            made = [ray.remote(SimulatedHost).options(**options).remote() for _ in range(hosts)]
            learner = ray.remote(SimulatedLearner).options(num_cpus=0).remote()
            rewards = RewardService(recipe, model, folder / "rollouts")
            cleanup.push_async_callback(rewards.close)
            await rewards.start()
            yield cls(folder, model, made, learner, rewards)

    async def run(self, settings: Settings) -> Run:
        """One run of the controller, from its start to the last step that is measured."""
        folder = self.folder / f"run-{next(self._number)}"
        recipe = _recipe(settings)
        await self.learner.prepare.remote(settings.seconds_per_step)
        learners = LearnerGroup([self.learner], recipe.rl.seconds_per_wait)
        async with simulated_pool(self.hosts, self.model_dir, recipe, settings.fleet) as pool:
            with RunWatch(folder, recipe, settings) as watch:
                parts = Parts(
                    visits=Visits(PROMPTS, recipe.rewards.reference, SAMPLES, recipe.seed),
                    pool=pool,
                    rewards=self.rewards,
                    learners=learners,
                    checkpoints=JobCheckpoints(CheckpointFolder(folder / "checkpoints", 1), learners),
                    weights=LiveWeights(folder / "weights.json", recipe.rewards),
                    log=watch,
                )
                watch.controller = Controller(recipe, parts)
                await watch.controller.run()
        return watch.run()


def _recipe(settings: Settings) -> Recipe:
    rl = {
        "steps": 10**9,
        "prompts_per_step": settings.prompts_per_step,
        "samples_per_prompt": SAMPLES,
        "max_policy_lag": settings.max_policy_lag,
        "groups_per_worker": settings.groups_per_worker or "null",
        "response_tokens": settings.response_tokens,
    }
    return load_recipe(DEMO, [f"rl.{name}={value}" for name, value in rl.items()])


def _train_tokenizer(recipe: Recipe, folder: str) -> None:
    train_tokenizer([WORDS] * 4, [*OUTER_TAGS, *recipe.response.reasoning_elements], _VOCABULARY).save_pretrained(
        folder
    )


@contextmanager
def _own_ray(folder: Path, raylets: int) -> Iterator[None]:
    """A cluster of its own, with its own folder and ports."""
    ours = {
        "RAY_TMPDIR": str(folder),
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of the visits that a run leaves behind when it has seen enough
    }
    node = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False, "dashboard_port": 0}
    with patch.dict(os.environ, ours):
        # Reward workers ask for CPUs: with more than one raylet the driver's has none, so that they go elsewhere.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2 if raylets == 1 else 0, **node})
        try:
            for _ in range(raylets - 1):
                cluster.add_node(num_cpus=2, resources={_ELSEWHERE: 1000}, **node)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()
