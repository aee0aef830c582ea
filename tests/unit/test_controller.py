"""The real controller, gate, buffer and ledger; fakes in virtual time stand for workers, scorers and learner."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.live_weights import LiveWeights
from cluster.records import GroupRecord, SampleRecord
from cluster.run_log import Column, RunLog
from cluster.visits import Visits
from configs.load import load_recipe
from configs.schema import Recipe, Reference, RewardWeights
from learner.rl import RlReport
from rollout.engine import EngineError
from rollout.prompts import Message, Prompt
from rollout.worker import Visit
from tests.unit import virtual_time

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
PROMPTS = [
    Prompt(f"p{i}", "emoji", (Message("user", "?"),), candidates=("a", "b"), label="a", counts={"a": 3, "b": 1})
    for i in range(7)
]


@dataclass
class FakePool:
    """Samples a group in a random time, under the version it holds when it begins."""

    chance: random.Random
    failing: float = 0.0
    size: int = 2
    version: int = 0
    in_flight: int = 0
    restarts: int = 0
    started_under: dict[int, int] = field(default_factory=dict)
    most_in_flight: int = 0

    async def generate(self, visit: Visit, _: object) -> int:
        self.started_under[visit.group_id] = self.version
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.chance.lognormvariate(0, 1))
        self.in_flight -= 1
        if self.chance.random() < self.failing:
            raise EngineError(f"group {visit.group_id} failed")
        return visit.group_id

    async def load(self, update: Any) -> None:
        await asyncio.sleep(self.chance.random())
        self.version = update.version


@dataclass
class FakeRewards:
    """Scores with a record as short as can be; `unscored` groups lose all members but one."""

    pool: FakePool
    unscored: frozenset[int] = frozenset()
    counts: dict[str, float] = field(default_factory=lambda: {"reward_worker_restarts": 0.0})

    async def score(self, group_id: int, visit: Visit) -> tuple[GroupRecord, int]:
        await asyncio.sleep(0.1)
        version = self.pool.started_under[group_id]
        parts = {"correctness": 1.0, "calibration": -0.25, "format": 1.0}
        good = SampleRecord("a", 0.5, None, 1.0, parts, 10, False, ((version, 10),), None)
        bad = SampleRecord(None, None, None, None, {}, 10, False, ((version, 10),), "scorer failed")
        samples = (good, bad, bad) if group_id in self.unscored else (good, good, good)
        prompt_id = visit.prompt.prompt_id
        return GroupRecord(group_id, prompt_id, visit.target, "rollout-0", version, samples, 1.0), group_id


@dataclass(frozen=True)
class FakeUpdate:
    version: int


@dataclass
class FakeLearners:
    """Two ranks that take a second a step, and remember what they trained on and under which version."""

    size: int = 2
    trained: list[list[int]] = field(default_factory=list)
    weights: list[RewardWeights] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    async def call_each(self, method: str, arguments: list[tuple[list[int], RewardWeights]]) -> list[RlReport]:
        assert method == "step"
        self.weights.append(arguments[0][1])
        await asyncio.sleep(1.0)
        self.trained.append(sorted(group for groups, _ in arguments for group in groups))
        return [RlReport(0.0, 0.1, 1e-4, 0.0, 0.0, 0.0, None, None, 10, 1.0)] * self.size

    async def call(self, method: str, *arguments: Any) -> list[Any]:
        if method == "publish":
            return [FakeUpdate(*arguments)] * self.size
        if method == "load_checkpoint":
            self.loaded.append(str(arguments[0]))
        return [None] * self.size


@dataclass
class Trial:
    recipe: Recipe
    pool: FakePool
    learners: FakeLearners
    controller: Controller
    checkpoints: CheckpointFolder

    @property
    def ledger(self) -> dict[str, Any]:
        latest = self.checkpoints.latest()
        assert latest is not None
        state: dict[str, Any] = latest.state["ledger"]
        return state


def trial(
    folder: Path,
    *,
    lag: int = 1,
    seed: int = 0,
    failing: float = 0.0,
    unscored: frozenset[int] = frozenset(),
    groups_per_worker: int | None = None,
) -> Trial:
    overrides = [f"rl.max_policy_lag={lag}", "rl.steps=30", "rl.prompts_per_step=4", "rewards.weights.format=1"]
    recipe = load_recipe(DEMO, [*overrides, f"rl.groups_per_worker={groups_per_worker or 'null'}"])
    pool = FakePool(random.Random(seed), failing)
    learners = FakeLearners()
    checkpoints = CheckpointFolder(folder / "checkpoints")
    log = RunLog(folder, "stage3", (Column("reward", "reward", 3),), recipe)
    visits = Visits(PROMPTS, Reference.ANNOTATOR, 3, seed)
    weights = LiveWeights(folder / "weights.json", recipe.rewards)
    rewards = FakeRewards(pool, unscored)
    parts: Any = Parts(visits, pool, rewards, learners, checkpoints, weights, log)  # type: ignore[arg-type]
    return Trial(recipe, pool, learners, Controller(recipe, parts), checkpoints)


@pytest.mark.parametrize("lag", [0, 1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_every_admitted_group_is_trained_on_once_and_none_is_older_than_the_lag(
    tmp_path: Path, lag: int, seed: int
) -> None:
    run = trial(tmp_path, lag=lag, seed=seed)

    steps = virtual_time.run(run.controller.run())

    trained = [group for batch in run.learners.trained for group in batch]
    lags = [step - run.pool.started_under[g] for step, batch in enumerate(run.learners.trained) for g in batch]
    assert steps == 30
    assert sorted(trained) == list(range(30 * 4))
    assert max(lags) <= lag
    assert run.ledger["outstanding"] == run.ledger["dropped"] == []


def test_no_more_groups_are_sampled_at_once_than_the_workers_may(tmp_path: Path) -> None:
    few, all_admitted = trial(tmp_path / "few", lag=4, groups_per_worker=2), trial(tmp_path / "all", lag=4)

    for run in (few, all_admitted):
        assert virtual_time.run(run.controller.run()) == 30

    assert few.pool.most_in_flight == 2 * few.pool.size
    assert all_admitted.pool.most_in_flight > 2 * all_admitted.pool.size


def test_the_lag_is_made_use_of(tmp_path: Path) -> None:
    run = trial(tmp_path, lag=4)

    virtual_time.run(run.controller.run())

    lags = [step - run.pool.started_under[g] for step, batch in enumerate(run.learners.trained) for g in batch]
    assert max(lags) > 1


@pytest.mark.parametrize("lag", [0, 2])
def test_groups_that_fail_are_dropped_with_a_reason_and_others_take_their_places(tmp_path: Path, lag: int) -> None:
    run = trial(tmp_path, lag=lag, failing=0.1, unscored=frozenset({2, 11}))

    virtual_time.run(run.controller.run())

    trained = {group for batch in run.learners.trained for group in batch}
    dropped = {group: reason for group, _, reason in run.ledger["dropped"]}
    assert all(len(batch) == 4 for batch in run.learners.trained)
    assert "generation_failed" in dropped.values()
    assert dropped.get(2, dropped.get(11)) in ("scoring_failed", "generation_failed")
    assert trained | dropped.keys() == set(range(run.ledger["admitted"]))
    assert not trained & dropped.keys()


def test_a_stopped_run_goes_on_and_ends_with_the_totals_of_one_that_was_not(tmp_path: Path) -> None:
    first = trial(tmp_path, lag=2)

    async def stopped_after(seconds: float) -> int:
        asyncio.get_running_loop().call_later(seconds, first.controller.stop)
        return await first.controller.run()

    reached = virtual_time.run(stopped_after(12.0))
    outstanding = [group for group, _ in first.ledger["outstanding"]]
    second = trial(tmp_path, lag=2, seed=1)
    steps = virtual_time.run(second.controller.run())

    trained = [g for batch in first.learners.trained + second.learners.trained for g in batch]
    assert 0 < reached < 30
    assert outstanding
    assert second.learners.loaded == [str(tmp_path / "checkpoints" / f"step-{reached:06d}")]
    assert steps == 30
    assert sorted(trained) == list(range(30 * 4))


def test_weights_that_are_changed_in_a_running_job_hold_from_the_next_step_on_and_after_a_resume(
    tmp_path: Path,
) -> None:
    first, changed = trial(tmp_path), RewardWeights(calibration=0.5)

    async def changed_and_stopped() -> int:
        loop = asyncio.get_running_loop()
        loop.call_later(8.0, (tmp_path / "weights.json").write_text, changed.model_dump_json())
        loop.call_later(16.0, first.controller.stop)
        return await first.controller.run()

    reached = virtual_time.run(changed_and_stopped())
    (tmp_path / "weights.json").unlink()  # a checkpoint that was moved to another folder remembers them
    second = trial(tmp_path, seed=1)
    virtual_time.run(second.controller.run())

    before = first.learners.weights.index(changed)
    assert 0 < before < reached < 30
    assert first.learners.weights == [RewardWeights()] * before + [changed] * (reached - before)
    assert set(second.learners.weights) == {changed}
    logged = [json.loads(line)["weight/calibration"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == [1.0] * before + [0.5] * (30 - before)


def test_a_batch_that_never_comes_ends_the_run_with_what_it_waited_for(tmp_path: Path) -> None:
    run = trial(tmp_path)

    async def never(*_: object) -> int:
        await asyncio.sleep(1e9)
        raise AssertionError

    run.pool.generate = never  # type: ignore[method-assign]

    with pytest.raises(ExceptionGroup) as raised:
        virtual_time.run(run.controller.run())

    assert "no batch in 600 s: 8 groups in generation or scoring, 0 complete, 4 needed" in str(
        raised.value.exceptions[0]
    )
