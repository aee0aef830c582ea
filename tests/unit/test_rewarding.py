"""The reward service over fake actors: their methods are coroutines of this process, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

import cluster.rewarding
import cluster.supervisor
from cluster.records import GroupRecord, SampleRecord
from cluster.rewarding import RewardService, groups_at_once
from cluster.supervisor import NoWorkers
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.engine import EngineError
from rollout.prompts import Message, Prompt
from rollout.scorer_process import UnusableScorer
from rollout.worker import Visit
from tests.unit import virtual_time
from tests.unit.fake_room import FakeRoom

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
OWN = "rewards.correctness=a.b:C"  # one group at a time


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe(DEMO, ["reward_service.seconds_per_group=100", *overrides])


def visit(number: int) -> Visit:
    return Visit(number, Prompt("p", "t", (Message("user", "?"),)), None, 2, 0.0)


def record(number: int, *failures: str | None) -> GroupRecord:
    samples = tuple(SampleRecord("a", 0.5, None, 1.0, {}, 1, False, ((0, 1),), failure) for failure in failures)
    return GroupRecord(number, "p", None, "rollout-0", 0, samples, 1.0)


@dataclass
class Encoded:
    """Stands for the reference to a group."""

    number: int
    seconds: list[float]  # to score it: the first time, the second, and so on

    def __str__(self) -> str:
        return f"group {self.number}"


@dataclass
class FakeActor:
    """Scores groups one after the other, each in its time; `fail` is raised by the next calls of a method."""

    cluster: FakeCluster
    file: str
    fail: dict[str, list[Exception]]
    groups: list[int] = field(default_factory=list)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self, f"_{name}"))

    async def _start(self) -> None:
        await self._work(10.0)
        self._raise("start")

    async def _score(self, encoded: Encoded, _: Prompt) -> GroupRecord:
        async with self.busy:
            await self._work(encoded.seconds.pop(0))
        self._raise("score")
        self.groups.append(encoded.number)
        return replace(record(encoded.number, None, *self.cluster.failures), written=self.cluster.written)

    async def _close(self) -> None:
        self._raise("close")
        self.closed = True

    async def _work(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.dead.wait(), seconds)
        except TimeoutError:
            return
        raise RayActorError

    def _raise(self, method: str) -> None:
        if errors := self.fail.get(method):
            raise errors.pop(0)


@dataclass(frozen=True)
class _Method:
    call: Callable[..., Coroutine[Any, Any, Any]]

    def options(self, *, num_returns: int) -> SimpleNamespace:
        assert num_returns == 2
        return SimpleNamespace(remote=lambda encoded, prompt: (self.call(encoded, prompt), str(encoded)))

    def remote(self, *arguments: object) -> Coroutine[Any, Any, Any]:
        return self.call(*arguments)


class FakeCluster:
    """Stands for Ray: makes actors, and kills them."""

    def __init__(self) -> None:
        self.actors: list[FakeActor] = []
        self.options_given: list[dict[str, float]] = []
        self.failing: dict[int, dict[str, list[Exception]]] = {}  # by number of the actor
        self.failures: tuple[str, ...] = ()  # of responses, in every group
        self.written = True  # whether the disk takes groups

    def options(self, **options: float) -> SimpleNamespace:
        self.options_given.append(options)
        return SimpleNamespace(remote=self._new)

    def kill(self, actor: FakeActor) -> None:
        actor.dead.set()

    def _new(self, _: str, __: Recipe, file: str) -> FakeActor:
        self.actors.append(FakeActor(self, Path(file).name, self.failing.get(len(self.actors), {})))
        return self.actors[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster_ = FakeCluster()
    monkeypatch.setattr(cluster.rewarding, "RewardActor", cluster_)
    monkeypatch.setattr(cluster.rewarding, "Room", FakeRoom)
    monkeypatch.setattr(cluster.supervisor.ray, "kill", cluster_.kill)
    return cluster_


async def started(rollouts: Path, *overrides: str) -> RewardService:
    service = RewardService(recipe_with(*overrides), "model", rollouts)
    await service.start()
    return service


async def scored(service: RewardService, number: int, *seconds: float) -> None:
    """Score a group, and see that it is this group which comes back."""
    encoded: Any = Encoded(number, [*seconds] or [1.0] * 3)
    made, group = await service.score(encoded, visit(number))
    assert (made.group_id, group) == (number, f"group {number}")


def test_groups_go_to_the_workers_that_have_the_fewest(fake: FakeCluster, tmp_path: Path) -> None:
    async def job() -> None:
        service = await started(tmp_path, "reward_service.workers=3")
        await asyncio.gather(*(scored(service, n) for n in range(3)))

    virtual_time.run(job())

    assert [len(actor.groups) for actor in fake.actors] == [1, 1, 1]


def test_a_groups_time_limit_does_not_count_the_groups_before_it(fake: FakeCluster, tmp_path: Path) -> None:
    async def job() -> None:
        service = await started(tmp_path, OWN)
        await asyncio.gather(*(scored(service, n, 99.0) for n in range(5)))

    virtual_time.run(job())

    assert len(fake.actors) == 1


def test_a_worker_that_dies_is_replaced_once_and_none_of_its_groups_is_lost(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failing[0] = {"score": [RayActorError(), RayActorError()]}

    async def job() -> RewardService:
        service = await started(tmp_path, "reward_service.workers=2")
        await asyncio.gather(*(scored(service, n) for n in range(4)))
        return service

    service = virtual_time.run(job())

    assert sorted(number for actor in fake.actors for number in actor.groups) == list(range(4))
    assert service.counts["reward_worker_restarts"] == 1.0
    assert [service.counts[f"worker/reward-{n}/starts"] for n in (0, 1)] == [2.0, 1.0]
    assert [actor.file for actor in fake.actors] == ["reward-0.rollouts", "reward-1.rollouts", "reward-0.1.rollouts"]


def test_no_worker_gets_a_file_that_a_job_before_it_has_written(fake: FakeCluster, tmp_path: Path) -> None:
    for name in ("reward-0", "reward-0.1", "reward-1.1", "reward-10"):
        (tmp_path / f"{name}.rollouts").write_text("damaged")
    fake.failing[0] = {"score": [RayActorError()]}

    async def job() -> None:
        service = await started(tmp_path, "reward_service.workers=2")
        await asyncio.gather(*(scored(service, n) for n in range(4)))

    virtual_time.run(job())

    assert [actor.file for actor in fake.actors] == ["reward-0.2.rollouts", "reward-1.rollouts", "reward-0.3.rollouts"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"damaged"}


def test_a_worker_that_hangs_is_killed_and_its_group_scored_by_its_successor(fake: FakeCluster, tmp_path: Path) -> None:
    async def job() -> float:
        service = await started(tmp_path, OWN)
        before = asyncio.get_running_loop().time()
        await scored(service, 0, 101.0, 1.0)
        return asyncio.get_running_loop().time() - before

    assert virtual_time.run(job()) == pytest.approx(100 + 10 + 1)
    assert fake.actors[0].dead.is_set()
    assert [actor.groups for actor in fake.actors] == [[], [0]]


def test_a_late_report_of_a_death_does_not_cost_the_successor(fake: FakeCluster, tmp_path: Path) -> None:
    async def job() -> None:
        service = await started(tmp_path, OWN)
        (worker,), first = service._supervisor.workers, fake.actors[0]
        service._supervisor.lost(worker, first, RayActorError())
        await scored(service, 0)
        service._supervisor.lost(worker, first, RayActorError())
        await scored(service, 1)

    virtual_time.run(job())

    assert [actor.groups for actor in fake.actors] == [[], [0, 1]]


def test_a_group_that_no_worker_survives_is_given_up_and_the_next_one_scored(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failing = {number: {"score": [RayActorError()]} for number in range(3)}

    async def job() -> None:
        service = await started(tmp_path, OWN)
        with pytest.raises(EngineError, match="group 0: 3 attempts failed"):
            await scored(service, 0)
        await scored(service, 1)

    virtual_time.run(job())

    assert fake.actors[3].groups == [1]


def test_what_a_matcher_says_against_itself_is_what_the_start_raises(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failing[1] = {"start": [UnusableScorer("rewards.correctness: no such class")]}

    with pytest.raises(UnusableScorer, match="no such class"):
        virtual_time.run(started(tmp_path, "reward_service.workers=2"))

    assert len(fake.actors) == 2


def test_a_worker_that_dies_when_it_is_started_is_tried_a_few_times(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failing = {number: {"start": [RayActorError()]} for number in range(3)}

    with pytest.raises(NoWorkers, match="reward-0 could not be started in 3 attempts"):
        virtual_time.run(started(tmp_path))

    assert [actor.dead.is_set() for actor in fake.actors] == [True] * 3


def test_a_worker_that_cannot_be_replaced_ends_the_run(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failing = {0: {"score": [RayActorError()]}, 1: {"start": [UnusableScorer("gone")]}}

    async def job() -> None:
        service = await started(tmp_path, OWN)
        await asyncio.gather(*(scored(service, n) for n in range(3)))

    with pytest.raises(NoWorkers, match="could not be replaced") as raised:
        virtual_time.run(job())

    assert isinstance(raised.value.__cause__, UnusableScorer)


def test_responses_without_a_score_are_counted_by_their_cause(fake: FakeCluster, tmp_path: Path) -> None:
    fake.failures = ("ScorerError: it hung: twice", "JudgeError: 503", "ScorerError: it died")

    async def job() -> RewardService:
        service = await started(tmp_path)
        await asyncio.gather(*(scored(service, n) for n in range(2)))
        return service

    assert virtual_time.run(job()).counts == {
        "reward_worker_restarts": 0.0,
        "groups_unwritten": 0.0,
        "queue/reward": 0.0,
        "live/reward": 1.0,
        "worker/reward-0/groups": 0.0,
        "worker/reward-0/starts": 1.0,
        "unscored/ScorerError": 4.0,
        "unscored/JudgeError": 2.0,
    }


def test_groups_that_the_disk_did_not_take_are_counted(fake: FakeCluster, tmp_path: Path) -> None:
    fake.written = False

    async def job() -> RewardService:
        service = await started(tmp_path)
        await asyncio.gather(*(scored(service, n) for n in range(2)))
        return service

    assert virtual_time.run(job()).counts["groups_unwritten"] == 2.0


def test_closing_ends_every_worker_also_one_that_has_died(fake: FakeCluster, tmp_path: Path) -> None:
    async def job() -> None:
        service = await started(tmp_path, "reward_service.workers=2")
        fake.actors[0].fail["close"] = [RayActorError()]
        await service.close()

    virtual_time.run(job())

    assert [(actor.closed, actor.dead.is_set()) for actor in fake.actors] == [(False, True), (True, True)]


@pytest.mark.parametrize(
    ("settings", "groups", "threads"),
    [
        ([], 2, 1),
        ([OWN], 1, 1),
        (["rewards.correctness=judge", "rewards.judge={url: 'https://j', requests_at_once: 20}"], 2, 2),
        (["rewards.correctness=judge", "rewards.judge={url: 'https://j', requests_at_once: 3}"], 1, 1),
    ],
)
def test_a_worker_has_as_many_groups_at_once_as_it_can_use(
    fake: FakeCluster, tmp_path: Path, settings: list[str], groups: int, threads: int
) -> None:
    settings = ["rl.samples_per_prompt=8", *settings]

    virtual_time.run(started(tmp_path, *settings))

    assert groups_at_once(recipe_with(*settings)) == groups
    assert fake.options_given[0]["max_concurrency"] == threads
