"""The real controller, gate, buffer and ledger; fakes in virtual time stand for workers, scorers and learner."""

from __future__ import annotations

import asyncio
import errno
import json
import pickle
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError

from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.job_checkpoints import JobCheckpoints
from cluster.live_weights import LiveWeights
from cluster.records import GroupRecord, SampleRecord
from cluster.run_log import Column, RunLog
from cluster.visits import Visits
from configs.load import load_recipe
from configs.schema import Recipe, Reference, RewardWeights, StaleGroups
from learner.file_sums import FileSum, found_sums, write_summed
from learner.meters import TokenMeters
from learner.rl import RlReport
from rollout.engine import EngineError
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.worker import Visit
from tests.unit import virtual_time

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
PROMPTS = [
    Prompt(f"p{i}", "emoji", (Message("user", "?"),), candidates=("a", "b"), label="a", counts={"a": 3, "b": 1})
    for i in range(7)
]


METERS = TokenMeters(0.0, 0.0, 1.0, 0.0, 0.0)
PROBE = Probe(PROMPTS[0], np.array([5, 6, 7], np.int32))


def logprobs_at(version: int) -> NDArray[np.float32]:
    """Of the probe's tokens, under weights that are others at every version."""
    return np.array([-0.5, -1.0, -0.25], np.float32) - np.float32(version)


@dataclass
class FakePool:
    """Samples a group in a random time, under the version it holds when it begins."""

    chance: random.Random
    failing: float = 0.0
    slow: Mapping[int, float] = field(default_factory=dict)  # seconds of groups that take longer
    size: int = 2
    version: int = 0
    in_flight: int = 0
    restarts: int = 0
    started_under: dict[int, int] = field(default_factory=dict)
    most_in_flight: int = 0
    cancelled: dict[int, int] = field(default_factory=dict)  # newest version at the time, by group
    probed: list[int] = field(default_factory=list)  # versions that an engine was asked at
    seconds_to_probe: float = 0.0
    corrupted_at: int | None = None  # from this version on engines hold the weights of the one before
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(10**9))
    unanswerable: frozenset[str] = frozenset()  # ids of prompts

    @property
    def metrics(self) -> dict[str, float]:
        return {"worker_restarts": float(self.restarts)}

    async def keep_to(self, groups: int | None, samples_per_group: int) -> None:
        if groups is not None:
            self.room = asyncio.Semaphore(self.size * groups)
        await asyncio.Event().wait()

    async def generate(self, visit: Visit, sampling: object, begins: Callable[[], None]) -> int:
        async with self.room:
            begins()
            return await self._generate(visit)

    async def _generate(self, visit: Visit) -> int:
        self.started_under[visit.group_id] = self.version
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.slow.get(visit.group_id, self.chance.lognormvariate(0, 1)))
        except asyncio.CancelledError:
            self.cancelled[visit.group_id] = self.version
            raise
        finally:
            self.in_flight -= 1
        if visit.prompt.prompt_id in self.unanswerable:
            raise ValueError("1.jpg: the picture cannot be read (image file is truncated)")
        if self.chance.random() < self.failing:
            raise EngineError(f"group {visit.group_id} failed")
        return visit.group_id

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        assert probe is PROBE
        self.probed.append(version)
        await asyncio.sleep(self.seconds_to_probe)
        if self.version != version:
            return None
        return logprobs_at(version if self.corrupted_at is None or version < self.corrupted_at else version - 1)

    async def load(self, update: Any) -> None:
        await asyncio.sleep(self.chance.random())
        self.version = update.version


@dataclass
class FakeRewards:
    """Scores with a record as short as can be; `unscored` groups lose all members but one."""

    pool: FakePool
    unscored: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()  # groups whose node ends before they are scored
    failing: frozenset[int] = frozenset()  # groups that no reward worker survives
    counts: dict[str, float] = field(default_factory=lambda: {"reward_worker_restarts": 0.0})
    records: dict[int, GroupRecord] = field(default_factory=dict)

    async def score(self, group_id: int, visit: Visit) -> tuple[GroupRecord, int]:
        await asyncio.sleep(0.1)
        if group_id in self.lost:
            raise ObjectLostError(f"{group_id:x}", "owner", "site")
        if group_id in self.failing:
            raise EngineError(f"group {group_id}: 3 attempts failed")
        version = self.pool.started_under[group_id]
        parts = {"correctness": 1.0, "calibration": -0.25, "format": 1.0}
        good = SampleRecord("a", 0.5, None, 1.0, parts, 10, False, ((version, 10),), None, version, version)
        bad = SampleRecord(None, None, None, None, {}, 10, False, ((version, 10),), "scorer failed")
        samples = (good, bad, bad) if group_id in self.unscored else (good, good, good)
        prompt_id = visit.prompt.prompt_id
        record = GroupRecord(group_id, prompt_id, visit.target, "rollout-0", version, samples, 1.0)
        self.records[group_id] = record
        return record, group_id


@dataclass(frozen=True)
class FakeUpdate:
    version: int
    nbytes: int = 2_500_000


@dataclass
class FakeLearners:
    """Two ranks that take a second a step, and remember what they trained on and under which version.

    What stands for a reference to a group is its id; a checkpoint keeps its record with it.
    """

    records: dict[int, GroupRecord]
    size: int = 2
    trained: list[list[int]] = field(default_factory=list)
    dealt: list[list[list[list[int]]]] = field(default_factory=list)  # groups by step, rank and minibatch
    versions: list[int] = field(default_factory=list)
    weights: list[RewardWeights] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    resumed_at: int = 0
    resumed_with: list[int] = field(default_factory=list)  # groups that had been sampled before
    begun: dict[Path, bytes] = field(default_factory=dict)  # files of a checkpoint that are still to be written
    begun_at: int = 0
    full_at: frozenset[int] = frozenset()  # steps after which the disk takes no checkpoint

    async def call_each(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        assert len(arguments) == self.size
        if method == "step":
            return await self.step(arguments)
        await asyncio.sleep(0.5)
        return [getattr(self, method)(*own) for own in arguments]

    async def step(self, arguments: list[tuple[Any, ...]]) -> list[RlReport]:
        self.weights.append(arguments[0][1])
        self.versions.append(arguments[0][2])
        await asyncio.sleep(1.0)
        assert {version for _, _, version, _ in arguments} == {len(self.trained) + self.resumed_at}
        self.dealt.append([minibatches for minibatches, *_ in arguments])
        self.trained.append(sorted(chain(*chain(*self.dealt[-1]))))
        report = RlReport(0.0, 0.1, 1e-4, METERS, None, None, None, 10, 1.0)
        if {probe for *_, probe in arguments} == {None}:
            return [replace(report, probe=PROBE), report]
        assert {probe for *_, probe in arguments} == {PROBE}
        return [replace(report, probe_logprobs=logprobs_at(self.versions[-1]))] * self.size

    def save_checkpoint(self, folder: str, groups_file: str, groups: list[int]) -> None:
        kept = pickle.dumps([(self.records[group], group) for group in groups])
        self.begun[Path(folder, groups_file)] = kept
        self.begun_at = len(self.trained) + self.resumed_at

    def checkpoint_files(self) -> dict[str, FileSum]:
        files, self.begun = self.begun, {}
        if self.begun_at in self.full_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return {str(path): write_summed(path, lambda file, kept=kept: file.write(kept)) for path, kept in files.items()}

    def checkpoint_sums(self, folder: str, names: list[str]) -> dict[str, FileSum | str]:
        return found_sums(Path(folder), names)

    def load_checkpoint(self, folder: str, groups_files: list[str]) -> list[tuple[GroupRecord, int]]:
        self.loaded.append(folder)
        self.resumed_at = int(folder.rpartition("-")[2])
        found = [kept for name in groups_files for kept in pickle.loads(Path(folder, name).read_bytes())]
        self.records |= {group: record for record, group in found}
        self.resumed_with += [group for _, group in found]
        return found

    async def call(self, method: str, *arguments: int) -> list[Any]:
        if method == "publish":
            return [FakeUpdate(*arguments)] * self.size
        assert method == "checkpoint_files"
        await asyncio.sleep(0.5)
        return [self.checkpoint_files()]


@dataclass
class Trial:
    folder: Path
    recipe: Recipe
    pool: FakePool
    learners: FakeLearners
    controller: Controller
    checkpoints: CheckpointFolder

    @property
    def ledger(self) -> dict[str, Any]:
        state: dict[str, Any] = self.checkpoints.read(self.checkpoints.newest_first()[0]).state["ledger"]
        return state

    @property
    def lags(self) -> list[int]:
        """Of every group that was trained on."""
        return [step - self.pool.started_under[g] for step, batch in enumerate(self.learners.trained) for g in batch]

    def logged(self, metric: str) -> list[Any]:
        """The metric in every line of the log; None where a line does not have it."""
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [json.loads(line).get(metric) for line in lines]


def trial(
    folder: Path,
    *,
    lag: int = 1,
    seed: int = 0,
    failing: float = 0.0,
    unscored: frozenset[int] = frozenset(),
    lost: frozenset[int] = frozenset(),
    groups_per_worker: int | None = None,
    stale_groups: StaleGroups = StaleGroups.WAIT,
    slow: Mapping[int, float] | None = None,
    minibatches: int = 1,
    workers: int = 2,
    checkpoint_every: int = 50,
    full_at: frozenset[int] = frozenset(),
) -> Trial:
    overrides = [f"rl.max_policy_lag={lag}", "rl.steps=30", "rl.prompts_per_step=4", "rewards.weights.format=1"]
    overrides += [f"rl.stale_groups={stale_groups}", f"rl.minibatches={minibatches}"]
    overrides += [f"rl.checkpoint_every_steps={checkpoint_every}"]
    recipe = load_recipe(DEMO, [*overrides, f"rl.groups_per_worker={groups_per_worker or 'null'}"])
    pool = FakePool(random.Random(seed), failing, slow or {}, workers)
    rewards = FakeRewards(pool, unscored, lost)
    learners = FakeLearners(rewards.records, full_at=full_at)
    checkpoints = CheckpointFolder(folder / "checkpoints", 2)
    log = RunLog(folder, "stage3", (Column("reward", "reward", 3),), recipe)
    visits = Visits(PROMPTS, Reference.ANNOTATOR, 3, seed)
    weights = LiveWeights(folder / "weights.json", recipe.rewards)
    job_checkpoints = JobCheckpoints(checkpoints, learners)  # type: ignore[arg-type]
    parts: Any = Parts(visits, pool, rewards, learners, job_checkpoints, weights, log)  # type: ignore[arg-type]
    return Trial(folder, recipe, pool, learners, Controller(recipe, parts), checkpoints)


@pytest.mark.parametrize("lag", [1, 3])
def test_a_step_waits_for_a_group_that_it_would_make_too_old_and_the_log_says_how_long(
    tmp_path: Path, lag: int
) -> None:
    run = trial(tmp_path, lag=lag, slow={2: 100.0})

    virtual_time.run(run.controller.run())

    assert 2 in run.learners.trained[lag]
    assert run.ledger["dropped"] == []
    assert run.pool.cancelled == {}
    assert max(run.logged("stale_wait_seconds")) == run.logged("stale_wait_seconds")[lag] > 80.0
    assert run.logged("stale_wait_groups")[lag] >= 1
    assert run.logged("running/lag_max")[lag - 1] == lag - 1  # the last batch that it was passed over by
    assert run.logged("finished_late/groups")[lag] >= 1


@pytest.mark.parametrize("lag", [1, 3])
def test_to_drop_is_to_go_on_without_such_a_group_and_to_cancel_it(tmp_path: Path, lag: int) -> None:
    run = trial(tmp_path, lag=lag, slow={2: 100.0}, stale_groups=StaleGroups.DROP)

    steps = virtual_time.run(run.controller.run())

    dropped = {group: reason for group, _, reason in run.ledger["dropped"]}
    too_slow = [group for group, reason in dropped.items() if reason == "too_slow"]
    trained = [group for batch in run.learners.trained for group in batch]
    assert steps == 30
    assert dropped[2] == "too_slow"
    assert run.pool.cancelled[2] <= lag + 1  # at once, and not where the run ends
    assert run.pool.cancelled.keys() <= set(too_slow)  # the others were being scored
    assert run.pool.in_flight == 0
    assert sorted([*trained, *dropped]) == list(range(run.ledger["admitted"]))
    assert max(run.lags) <= lag
    assert sum(run.logged("stale_wait_seconds")) == 0.0
    assert sum(run.logged("dropped_unfinished/groups")) == len(too_slow)
    assert run.logged("dropped_unfinished/lag_max")[lag + 1] == lag + 1


def test_a_result_that_comes_after_its_group_was_given_up_changes_nothing(tmp_path: Path) -> None:
    run = trial(tmp_path, lag=1, slow={2: 100.0}, stale_groups=StaleGroups.DROP)
    generate = run.pool.generate

    async def deaf(visit: Visit, *others: Any) -> int:
        """As Python 3.11's wait_for, where the result comes at the same moment as the cancellation."""
        try:
            return await generate(visit, *others)
        except asyncio.CancelledError:
            return visit.group_id

    run.pool.generate = deaf  # type: ignore[method-assign]

    steps = virtual_time.run(run.controller.run())

    assert steps == 30
    assert 2 in run.pool.cancelled
    assert 2 not in [group for batch in run.learners.trained for group in batch]
    assert run.ledger["outstanding"] == []


def test_a_group_that_waits_for_room_does_not_age(tmp_path: Path) -> None:
    # Two at a time of 20: most of them are admitted more than four steps before they begin.
    run = trial(tmp_path, lag=4, groups_per_worker=1, stale_groups=StaleGroups.DROP)

    virtual_time.run(run.controller.run())

    assert run.ledger["dropped"] == []


@pytest.mark.parametrize("stale_groups", StaleGroups)
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("seed", range(2))
def test_failures_and_slow_groups_together_cost_neither_the_bound_nor_the_end(
    tmp_path: Path, lag: int, seed: int, stale_groups: StaleGroups
) -> None:
    slow = dict.fromkeys(range(0, 120, 5), 7.0)
    run = trial(tmp_path, lag=lag, seed=seed, failing=0.1, slow=slow, stale_groups=stale_groups)

    steps = virtual_time.run(run.controller.run())

    assert steps == 30
    assert max(run.lags) <= lag
    assert run.ledger["outstanding"] == []
    by_age = {"stale", "too_slow"} & {reason for *_, reason in run.ledger["dropped"]}
    assert bool(by_age) == (stale_groups is StaleGroups.DROP and lag > 0)


@pytest.mark.parametrize("lag", [0, 1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_every_admitted_group_is_trained_on_once_and_none_is_older_than_the_lag(
    tmp_path: Path, lag: int, seed: int
) -> None:
    run = trial(tmp_path, lag=lag, seed=seed)

    steps = virtual_time.run(run.controller.run())

    trained = [group for batch in run.learners.trained for group in batch]
    assert steps == 30
    assert sorted(trained) == list(range(30 * 4))
    assert max(run.lags) <= lag
    assert run.ledger["outstanding"] == run.ledger["dropped"] == []


def test_every_rank_gets_as_many_minibatches_and_a_group_in_each(tmp_path: Path) -> None:
    run = trial(tmp_path, minibatches=2)

    steps = virtual_time.run(run.controller.run())

    assert run.learners.versions == list(range(steps)) == list(range(30))  # a version is a batch, not an optimizer step
    assert sorted(chain(*run.learners.trained)) == list(range(30 * 4))
    for ranks in run.learners.dealt:
        assert [[len(groups) for groups in minibatches] for minibatches in ranks] == [[1, 1], [1, 1]]
        first, second = (
            [groups for minibatch in rank_by_rank for groups in minibatch] for rank_by_rank in zip(*ranks, strict=True)
        )
        assert max(min(first), min(second)) < min(max(first), max(second))  # neither has the older ones


def test_no_more_groups_are_sampled_at_once_than_the_workers_may(tmp_path: Path) -> None:
    few, all_admitted = trial(tmp_path / "few", lag=4, groups_per_worker=2), trial(tmp_path / "all", lag=4)

    for run in (few, all_admitted):
        assert virtual_time.run(run.controller.run()) == 30

    assert few.pool.most_in_flight == 2 * few.pool.size
    assert all_admitted.pool.most_in_flight > 2 * all_admitted.pool.size


def test_the_lag_is_made_use_of(tmp_path: Path) -> None:
    run = trial(tmp_path, lag=4)

    virtual_time.run(run.controller.run())

    assert max(run.lags) > 1


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


def test_a_group_that_is_lost_with_its_node_before_it_is_scored_is_dropped_and_the_run_goes_on(tmp_path: Path) -> None:
    run = trial(tmp_path, lost=frozenset({2, 11}))

    virtual_time.run(run.controller.run())

    assert [row[::2] for row in run.ledger["dropped"]] == [[2, "lost"], [11, "lost"]]
    assert run.ledger["admitted"] == 30 * 4 + 2
    assert run.ledger["outstanding"] == []


def test_a_group_that_cannot_be_scored_is_dropped_for_that(tmp_path: Path) -> None:
    run = trial(tmp_path)
    run.controller._parts.rewards.failing = frozenset({2, 11})  # type: ignore[attr-defined]

    virtual_time.run(run.controller.run())

    assert [row[::2] for row in run.ledger["dropped"]] == [[2, "scoring_failed"], [11, "scoring_failed"]]
    assert run.logged("dropped/scoring_failed")[-1] == 2
    assert run.ledger["outstanding"] == []


def test_a_prompt_that_cannot_be_answered_costs_its_groups_and_the_log_names_it_and_the_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trial(tmp_path)
    run.pool.unanswerable = frozenset({"p3"})

    steps = virtual_time.run(run.controller.run())

    dropped = run.ledger["dropped"]
    trained = {group for batch in run.learners.trained for group in batch}
    assert steps == 30
    assert len(dropped) > 10  # at each visit
    assert {tuple(row[1:]) for row in dropped} == {("p3", "unanswerable")}
    assert trained | {row[0] for row in dropped} == set(range(run.ledger["admitted"]))
    assert run.ledger["outstanding"] == []
    assert run.logged("dropped/unanswerable")[-1] == len(dropped)
    group = dropped[0][0]
    told = f"group {group} of prompt p3 is dropped, unanswerable: 1.jpg: the picture cannot be read (image file is"
    assert sum(record.getMessage().startswith(told) for record in caplog.records) == 1


def test_a_run_in_which_no_prompt_can_be_answered_ends_and_says_so(tmp_path: Path) -> None:
    run = trial(tmp_path)
    run.pool.unanswerable = frozenset(prompt.prompt_id for prompt in PROMPTS)

    with pytest.raises(ExceptionGroup) as raised:
        virtual_time.run(run.controller.run())

    assert re.search(r"no batch of 4 in 600 s: .*; dropped so far: \d+ unanswerable\.", str(raised.value.exceptions[0]))


def test_a_value_error_of_scoring_is_no_prompts_and_ends_the_run(tmp_path: Path) -> None:
    run = trial(tmp_path)

    async def score(*_: object) -> None:
        raise ValueError("the reward worker has another recipe")

    run.controller._parts.rewards.score = score  # type: ignore[method-assign,assignment]

    with pytest.raises(ExceptionGroup) as raised:
        virtual_time.run(run.controller.run())

    assert raised.group_contains(ValueError, match="another recipe")


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
    assert second.learners.loaded == [str(tmp_path / "checkpoints" / f"step-{reached:06d}")] * 2
    assert steps == 30
    assert sorted(trained) == list(range(30 * 4))
    told = next(line for line in second.controller.calibration_by_lag().splitlines() if "all " in line)
    assert told.split()[1] == str(30 * 4 * 3)  # responses, those before the stop included


@pytest.mark.parametrize("seconds", [4.0, 4.5, 5.0, 5.5, 6.0])
def test_nothing_is_admitted_after_a_stop(tmp_path: Path, seconds: float) -> None:
    run = trial(tmp_path, lag=2)
    begun_by_then: list[int] = []

    def stop() -> None:
        begun_by_then.extend(run.pool.started_under)
        run.controller.stop()

    async def stopped() -> int:
        asyncio.get_running_loop().call_later(seconds, stop)
        return await run.controller.run()

    assert 0 < virtual_time.run(stopped()) < 30
    assert list(run.pool.started_under) == begun_by_then


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


def test_the_log_says_how_much_an_update_took_of_the_network(tmp_path: Path) -> None:
    virtual_time.run(trial(tmp_path, lag=0).controller.run())

    logged = [json.loads(line)["update_megabytes"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == [0.0] + [2.5] * 29  # a step's line is written before its own update


def test_a_batch_that_never_comes_ends_the_run_with_what_it_waited_for(tmp_path: Path) -> None:
    run = trial(tmp_path)

    async def never(visit: Visit, sampling: object, begins: Callable[[], None]) -> int:
        begins()
        await asyncio.sleep(1e9)
        raise AssertionError

    run.pool.generate = never  # type: ignore[method-assign]

    with pytest.raises(ExceptionGroup) as raised:
        virtual_time.run(run.controller.run())

    told = str(raised.value.exceptions[0])
    assert told.startswith("no batch of 4 in 600 s: 8 groups in generation or scoring, 0 complete. ")
