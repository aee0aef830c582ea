"""Stage 3's controller on a real Ray cluster whose nodes come and go, with simulated engines on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from transformers import AutoTokenizer

from benchmarks.simulated_cluster import SimulatedLearner, SimulatedWorker
from benchmarks.stage3_run import ANSWERS, PROMPTS, SAMPLES
from cluster.actor_names import next_name
from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.job_checkpoints import JobCheckpoints
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.pool import RolloutPool
from cluster.rewarding import RewardService
from cluster.run_log import RunLog
from cluster.step_metrics import COLUMNS
from cluster.supervisor import Worker
from cluster.visits import Visits
from configs.load import load_recipe
from configs.schema import Recipe
from learner.scratch import train_tokenizer
from rewards.parse import OUTER_TAGS
from rollout.chat import ImageLimits
from rollout.engine_setup import EngineSetup
from rollout.rollout_file import read_rollouts
from rollout.simulated import Simulation
from rollout.simulated_text import WORDS, ResponseWriter
from rollout.trajectory import Group
from tests.integration.raylets import raylets

pytestmark = pytest.mark.integration

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
GROUPS = 8
LAG = 2
SETTINGS = [
    *(
        "rl.steps=1000000",
        f"rl.prompts_per_step={GROUPS}",
        f"rl.samples_per_prompt={SAMPLES}",
        "rl.groups_per_worker=null",
    ),
    *(f"rl.max_policy_lag={LAG}", "engine.workers=1", "engine.workers_at_most=3"),
    *("engine.cpus_per_worker=0", "engine.gpus_per_worker=1"),
]
ROLLOUT_NODE = {"num_cpus": 0, "num_gpus": 1}  # room for a rollout worker, and for nothing else
SIMULATION = Simulation(seconds_per_token=0.01)


@ray.remote
class Actor(SimulatedWorker):
    """A rollout worker in a process of its own, whose engine is simulated."""

    def __init__(self, name: str, model_dir: str, recipe: Recipe) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model_dir).backend_tokenizer
        super().__init__(name, SIMULATION, tokenizer, ResponseWriter(tokenizer, recipe.response, ANSWERS))


class Pool(RolloutPool):
    """The rollout pool of such workers."""

    def __init__(self, recipe: Recipe, model_dir: str) -> None:
        super().__init__(EngineSetup(model_dir, recipe.engine, ImageLimits()), recipe.rl.seconds_per_wait)
        self._arguments = (model_dir, recipe)

    def _make(self, worker: Worker) -> Any:
        assert worker.room is not None
        options = worker.room.options()
        return Actor.options(name=next_name(worker.name), **options).remote(worker.name, *self._arguments)

    def nodes(self) -> dict[str, str]:
        """The node of each worker that is there, by the worker's name."""
        return {worker.name: worker.room.nodes()[0] for worker in self._supervisor.live if worker.room is not None}


@dataclass(frozen=True)
class Stage3:
    """A run of the controller."""

    folder: Path
    pool: Pool
    controller: Controller
    running: asyncio.Task[int]

    @property
    def steps(self) -> int:
        log = self.folder / "log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def scored(self) -> list[Group]:
        """The groups in the rollout files, of which the last may be half written."""
        files = (self.folder / "rollouts").glob("*.rollouts")
        return [group for file in files for group in read_rollouts(file, strict=False)]

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait, at most for as long as the test may take."""
        while not true():
            assert not self.running.done(), self.running.result()
            await asyncio.sleep(0.1)

    async def more_steps(self, number: int = 3) -> None:
        """Wait for steps."""
        wanted = self.steps + number
        await self.until(lambda: self.steps >= wanted)


@asynccontextmanager
async def stage3(recipe: Recipe, folder: Path) -> AsyncIterator[Stage3]:
    """As `cluster.stages.run_rl` puts it together."""
    model = str(folder / "model")
    train_tokenizer([WORDS] * 4, [*OUTER_TAGS, *recipe.response.reasoning_elements], 1024).save_pretrained(model)
    learner = ray.remote(SimulatedLearner).options(num_cpus=1).remote()
    await learner.prepare.remote(0.0)
    learners = LearnerGroup([learner], recipe.rl.seconds_per_wait)
    rewards = RewardService(recipe, model, folder / "rollouts")
    pool = Pool(recipe, model)
    try:
        await pool.bring_up()
        await rewards.start()
        pool.grow()
        with RunLog(folder, "stage3", COLUMNS, recipe) as log:
            parts = Parts(
                visits=Visits(PROMPTS, recipe.rewards.reference, SAMPLES, recipe.seed),
                pool=pool,
                rewards=rewards,
                learners=learners,
                checkpoints=JobCheckpoints(CheckpointFolder(folder / "checkpoints", 1), learners),
                weights=LiveWeights(folder / "weights.json", recipe.rewards),
                log=log,
            )
            controller = Controller(recipe, parts)
            yield Stage3(folder, pool, controller, asyncio.create_task(controller.run()))
    finally:
        await pool.close()
        await rewards.close()


def test_nodes_go_and_come_while_the_run_goes_on_and_every_group_is_accounted_for_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    recipe = load_recipe(DEMO, SETTINGS)

    async def job() -> int:
        with raylets(tmp_path_factory.mktemp("r"), num_cpus=2) as cluster:
            for _ in range(2):
                cluster.add(**ROLLOUT_NODE)
            async with stage3(recipe, folder) as run:
                await run.until(lambda: set(run.pool.nodes()) == {"rollout-0", "rollout-1"})
                await run.more_steps()

                cluster.remove(run.pool.nodes()["rollout-0"])
                await run.until(lambda: set(run.pool.nodes()) == {"rollout-1"})
                await run.more_steps()

                before = run.steps
                for _ in range(2):
                    cluster.add(**ROLLOUT_NODE)
                await run.until(lambda: len(run.pool.nodes()) == 3)
                assert len(set(run.pool.nodes().values())) == 3
                await run.until(lambda: any(group.worker == "rollout-2" for group in run.scored()))
                run.controller.stop()
                await run.running
                assert run.pool.restarts == 1
                return before

    before = asyncio.run(job())

    checkpoints = CheckpointFolder(folder / "checkpoints", 1)
    checkpoint = checkpoints.read(checkpoints.newest_first()[0])
    ledger = checkpoint.state["ledger"]
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    scored = [group for file in (folder / "rollouts").glob("*.rollouts") for group in read_rollouts(file)]
    numbers = [group.group_id for group in scored]
    trained = set(range(ledger["admitted"])) - {number for number, _ in ledger["outstanding"]}
    assert ledger["dropped"] == []
    assert len(trained) == checkpoint.step * GROUPS
    assert len(numbers) == len(set(numbers))
    assert trained <= set(numbers)
    assert max(line["lag_max"] for line in log) <= LAG
    # The worker that was never there before began under weights that were published before it came, and none older.
    assert min(group.oldest_version for group in scored if group.worker == "rollout-2") >= before - 1
