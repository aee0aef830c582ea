"""The pool over fake actors: their methods are coroutines of this process, in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayActorError

import cluster.allocator
import cluster.broadcast_sender
import cluster.pool
import cluster.supervisor
from cluster.broadcast_sender import Offer
from cluster.pool import RolloutPool
from cluster.rollout_actor import CALLS_AT_ONCE
from cluster.room import NoRoom
from cluster.sampling import RolloutWorkers, sample_each
from cluster.supervisor import NoWorkers
from cluster.transport import sender_of
from cluster.weight_update import WrongWeights
from configs.bundles import Asked
from configs.load import load_recipe
from configs.schema import Engine, GroupsPerWorker, Through, Transfer
from rollout.chat import ImageLimits
from rollout.engine import EngineDied, EngineError, SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.worker import Visit
from tests.unit import virtual_time
from tests.unit.fake_room import FakeRoom

SAMPLING = SamplingSettings(1.0, 8)
WORDS = Path(__file__).parents[2] / "configs" / "words" / "words.yaml"


def visit(number: int) -> Visit:
    return Visit(number, Prompt("p", "t", (Message("user", "?"),)), None, 2, 0.0)


@dataclass(frozen=True)
class Update:
    version: int
    checksum: str = "good"


@dataclass
class FakeActor:
    """An actor with an engine that takes `seconds` for a group; `fail` is raised by the next call of a method."""

    cluster: FakeCluster
    number: int
    held: list[int] = field(default_factory=list)
    fail: dict[str, Exception] = field(default_factory=dict)
    wrong: int = 0  # times that it finds other weights
    hangs: bool = False  # when it is to load
    killed: bool = False
    groups: list[int] = field(default_factory=list)
    probed: list[int] = field(default_factory=list)  # versions
    seconds_to_probe: float = 0.5
    setups: list[EngineSetup] = field(default_factory=list)  # what it was started from

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self, f"_{name}"))

    async def _start(self, setup: EngineSetup) -> float:
        self.setups.append(setup)
        await asyncio.sleep(self.cluster.seconds_to_start)
        self._raise("start")
        return self.cluster.seconds_to_start

    async def _generate(self, visit: Visit, _: object) -> None:
        await asyncio.sleep(1.0)
        self._raise("generate")
        self.groups.append(visit.group_id)

    async def _load(self, update: Update) -> str:
        await asyncio.sleep(math.inf if self.hangs else self.cluster.seconds_to_load)
        self._raise("load")
        if self.wrong:
            self.wrong -= 1
            return "other"
        self.held.append(update.version)
        return self.cluster.checksum

    async def _occupancy(self) -> Occupancy:
        self._raise("occupancy")
        return Occupancy(unfinished=6, finished=0, waiting=0, kv_use=0.25, preempted=0)

    async def _logprobs(self, probe: object, version: int) -> int:
        await asyncio.sleep(self.seconds_to_probe)
        self._raise("logprobs")
        self.probed.append(version)
        return version

    async def _close(self) -> None:
        self._raise("close")

    def _raise(self, method: str) -> None:
        if self.killed:
            raise RayActorError
        if error := self.fail.pop(method, None):
            raise error


@dataclass(frozen=True)
class _Method:
    call: Callable[..., Coroutine[Any, Any, Any]]

    def options(self, *, num_returns: int) -> _Two:
        assert num_returns == 2
        return _Two(self.call)

    def remote(self, *arguments: object) -> Coroutine[Any, Any, Any]:
        return self.call(*arguments)


@dataclass(frozen=True)
class _Two:
    call: Callable[..., Coroutine[Any, Any, Any]]

    def remote(self, visit: Visit, sampling: object) -> tuple[Any, str]:
        return self.call(visit, sampling), f"group {visit.group_id}"


class FakeCluster:
    """Stands for Ray: makes actors, and kills them."""

    def __init__(self) -> None:
        self.actors: list[FakeActor] = []
        self.resources: list[dict[str, object]] = []
        self.failures: dict[int, dict[str, Exception]] = {}  # by number of the actor
        self.seconds_to_start = 10.0
        self.seconds_to_load = 1.0
        self.checksum = "good"
        self.cancelled: list[Any] = []  # what `generate` gave to wait for
        self.rooms: list[FakeRoom] = []
        self.nodes = ["node-0"]  # that rooms are on, in turn
        self.crowded = False  # there is no room

    def options(self, **resources: object) -> SimpleNamespace:
        self.resources.append(resources)
        return SimpleNamespace(remote=self._new)

    def room(self, asked: Asked) -> FakeRoom:
        room = FakeRoom(asked, self.nodes[len(self.rooms) % len(self.nodes)])
        if self.crowded:
            room.there.clear()
        self.rooms.append(room)
        return room

    def kill(self, actor: FakeActor) -> None:
        actor.killed = True

    def _new(self, _: str) -> FakeActor:
        number = len(self.actors)
        self.actors.append(FakeActor(self, number, fail=self.failures.get(number, {})))
        return self.actors[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster_ = FakeCluster()
    monkeypatch.setattr(cluster.pool, "RolloutActor", cluster_)
    monkeypatch.setattr(cluster.pool, "Room", cluster_.room)
    monkeypatch.setattr(cluster.supervisor.ray, "kill", cluster_.kill)
    monkeypatch.setattr(cluster.pool.ray, "cancel", cluster_.cancelled.append)
    return cluster_


async def started(workers: int = 2, **settings: Any) -> RolloutPool:
    return await RolloutPool.start(EngineSetup("model", Engine(workers=workers, **settings), ImageLimits()), 60.0)


def test_the_least_loaded_worker_takes_the_next_visit(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(2)
        await asyncio.gather(*(pool.generate(visit(n), SAMPLING) for n in range(6)))

    virtual_time.run(job())

    assert [len(actor.groups) for actor in fake.actors] == [3, 3]


def test_a_visit_that_nobody_waits_for_is_cancelled_at_its_worker_and_takes_up_no_place(fake: FakeCluster) -> None:
    async def job() -> RolloutPool:
        pool = await started(1)
        given_up, wanted = (asyncio.create_task(pool.generate(visit(n), SAMPLING)) for n in range(2))
        await asyncio.sleep(0.5)
        given_up.cancel()
        assert await wanted == "group 1"
        return pool

    pool = virtual_time.run(job())

    assert [task.__name__ for task in fake.cancelled] == ["_generate"]
    assert fake.actors[0].groups == [1]
    assert pool.in_flight == pool.restarts == 0


def test_a_worker_asks_for_the_gpus_of_the_recipe(fake: FakeCluster) -> None:
    virtual_time.run(started(1, tensor_parallel=4, gpus_per_worker=4, cpus_per_worker=2))

    assert [(given["num_cpus"], given["num_gpus"]) for given in fake.resources] == [(2, 4)]


def test_new_weights_do_not_wait_for_groups_however_many_a_worker_has(fake: FakeCluster) -> None:
    virtual_time.run(started(1))

    assert [given["max_concurrency"] for given in fake.resources] == [CALLS_AT_ONCE]
    assert CALLS_AT_ONCE > 1000 * 16  # prompts of a step, and allowed versions of lag


@pytest.mark.parametrize(("gpus", "variables"), [(0, {"LD_PRELOAD": "libtcmalloc.so.4"}), (1, {})])
def test_an_engine_on_cpus_gets_tcmalloc_where_it_is_installed(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, gpus: float, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(cluster.allocator, "find_library", {"tcmalloc": "libtcmalloc.so.4"}.get)

    virtual_time.run(started(1, gpus_per_worker=gpus))

    assert [given["runtime_env"] for given in fake.resources] == [{"env_vars": variables}]


def test_a_visit_begins_once_and_not_before_a_worker_has_room(fake: FakeCluster) -> None:
    began: list[tuple[int, float]] = []

    async def job() -> None:
        pool = await started(2)
        keeping = asyncio.create_task(pool.keep_to(1, 2))
        fake.actors[0].fail["generate"] = EngineError("a cache was lost")
        clock = asyncio.get_running_loop().time
        since = clock()

        def begins(number: int) -> Callable[[], None]:
            return lambda: began.append((number, clock() - since))

        await asyncio.gather(*(pool.generate(visit(n), SAMPLING, begins(n)) for n in range(3)))
        assert pool.metrics["worker_restarts"] == 0.0
        keeping.cancel()

    virtual_time.run(job())

    assert began == [(0, 0.0), (1, 0.0), (2, 1.0)]
    assert [len(actor.groups) for actor in fake.actors] == [1, 2]


def test_engines_are_asked_how_full_they_are_where_the_limit_is_to_be_found(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await RolloutPool.start(
            EngineSetup("model", Engine(sequences_at_once=16), ImageLimits(), watched=True), 60.0
        )
        assert fake.actors[0].setups[0].watched
        keeping = asyncio.create_task(pool.keep_to(GroupsPerWorker.ADAPTIVE, 2))
        visits = [asyncio.create_task(pool.generate(visit(n), SAMPLING)) for n in range(20)]
        await asyncio.sleep(0.9)
        assert pool.in_flight == 8
        await asyncio.sleep(0.2)
        assert pool.metrics == {
            "worker_restarts": 0.0,
            "queue/rollout": 0.0,
            "live/rollout": 1.0,
            "worker/rollout-0/groups": 12.0,
            "worker/rollout-0/starts": 1.0,
            "engine/groups_at_most": 13.0,  # ten of its places are free
            "engine/groups": 12.0,  # eight are done since
            "engine/waiting": 0.0,
            "engine/kv_use": 0.25,
            "engine/preempted": 0.0,
        }
        keeping.cancel()
        await asyncio.wait(visits)

    virtual_time.run(job())


def test_workers_are_dealt_cores_and_a_replacement_takes_those_of_the_lost_one(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(3, cores=("0-3", "4-5"))
        fake.actors[1].fail["generate"] = EngineDied("gone")
        await asyncio.gather(*(pool.generate(visit(n), SAMPLING) for n in range(6)))
        await asyncio.sleep(20.0)

    virtual_time.run(job())

    given = [setup.settings for actor in fake.actors for setup in actor.setups]
    dealt = [(settings.cores, settings.threads_per_worker) for settings in given]
    assert dealt == [(("0-3",), 4), (("4-5",), 2), (("0-3",), 4), (("4-5",), 2)]


def test_workers_of_different_nodes_are_dealt_cores_of_their_own_node(fake: FakeCluster) -> None:
    fake.nodes = ["node-0", "node-1"]

    virtual_time.run(started(4, cores=("0-3", "4-5")))

    dealt = [setup.settings.cores for actor in fake.actors for setup in actor.setups]
    assert dealt == [("0-3",), ("0-3",), ("4-5",), ("4-5",)]


def test_a_worker_is_made_when_there_is_room_for_it_which_its_successor_takes_over(fake: FakeCluster) -> None:
    fake.crowded = True

    async def job() -> None:
        starting = asyncio.create_task(started(1))
        await asyncio.sleep(5.0)
        assert fake.actors == []
        (room,) = fake.rooms
        room.there.set()
        pool = await starting
        fake.actors[0].fail["generate"] = EngineDied("gone")
        await pool.generate(visit(0), SAMPLING)
        assert (fake.rooms, room.removed) == ([room], False)
        await pool.close()
        assert room.removed

    virtual_time.run(job())


def test_a_pool_that_finds_no_room_ends_its_start_and_asks_for_none_any_more(fake: FakeCluster) -> None:
    fake.crowded = True

    with pytest.raises(NoRoom, match="no room for rollout-0, 1 CPU"):
        virtual_time.run(started(2))

    assert fake.actors == []
    assert [room.removed for room in fake.rooms] == [True, True]


@pytest.mark.parametrize("death", [RayActorError(), OutOfMemoryError("95%"), EngineDied("gone")])
def test_a_dead_worker_is_replaced_once_and_its_visits_are_given_to_others(fake: FakeCluster, death: Exception) -> None:
    async def job() -> RolloutPool:
        pool = await started(2)
        fake.actors[0].fail["generate"] = death
        results = await asyncio.gather(*(pool.generate(visit(n), SAMPLING) for n in range(6)))
        assert results == [f"group {n}" for n in range(6)]
        return pool

    pool = virtual_time.run(job())

    assert sorted(n for actor in fake.actors for n in actor.groups) == list(range(6))
    assert pool.restarts == 1
    assert fake.actors[0].killed
    assert len(fake.actors) == 3


def test_a_request_that_failed_is_given_again_without_a_new_worker(fake: FakeCluster) -> None:
    async def job() -> RolloutPool:
        pool = await started(1)
        fake.actors[0].fail["generate"] = EngineError("a cache was lost")
        await pool.generate(visit(0), SAMPLING)
        return pool

    assert virtual_time.run(job()).restarts == 0
    assert fake.actors[0].groups == [0]


def test_a_replacement_holds_the_newest_weights_before_its_first_visit(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(1)
        await pool.load(Update(1))  # type: ignore[arg-type]
        fake.actors[0].fail["generate"] = EngineDied("gone")
        generating = asyncio.create_task(pool.generate(visit(0), SAMPLING))
        await asyncio.sleep(11.5)  # the replacement has started and is loading version 1
        await pool.load(Update(2))  # type: ignore[arg-type]
        assert fake.actors[1].groups == []
        await generating

    virtual_time.run(job())

    assert fake.actors[1].held == [1, 2]


def probe() -> Probe:
    return Probe(visit(0).prompt, np.array([1, 2], np.int32))


def test_engines_are_asked_about_the_probe_in_turns_and_it_takes_up_no_place(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(3)
        for version in range(1, 7):
            asked = asyncio.create_task(pool.logprobs(probe(), version))
            await asyncio.sleep(0.25)
            assert pool.in_flight == 0
            assert await asked == version

    virtual_time.run(job())

    assert [actor.probed for actor in fake.actors] == [[3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("error", [EngineError("a cache was lost"), ValueError("too long")])
def test_a_probe_that_fails_has_no_value_and_costs_no_worker(
    fake: FakeCluster, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def job() -> RolloutPool:
        pool = await started(2)
        fake.actors[1].fail["logprobs"] = error
        assert await pool.logprobs(probe(), 1) is None
        assert await pool.logprobs(probe(), 3) == 3
        return pool

    assert virtual_time.run(job()).restarts == 0
    assert f"rollout-1, probe under weight version 1: {error}" in caplog.text


@pytest.mark.parametrize("death", [RayActorError(), EngineDied("gone"), None])
def test_a_worker_that_is_lost_over_the_probe_is_replaced(fake: FakeCluster, death: Exception | None) -> None:
    async def job() -> RolloutPool:
        pool = await started(1)
        if death is None:
            fake.actors[0].seconds_to_probe = 1e9  # longer than the pool's 60 seconds
        else:
            fake.actors[0].fail["logprobs"] = death
        assert await pool.logprobs(probe(), 1) is None
        assert await pool.logprobs(probe(), 2) is None  # nobody is there to be asked
        await pool.generate(visit(0), SAMPLING)
        assert await pool.logprobs(probe(), 3) == 3
        return pool

    assert virtual_time.run(job()).restarts == 1


@pytest.mark.parametrize("seconds", [22.5, 23.0, 23.5])  # it has started at 22 s and holds version 1 at 23 s
def test_an_update_as_a_replacement_comes_to_life_reaches_it(fake: FakeCluster, seconds: float) -> None:
    async def job() -> None:
        pool = await started(1)
        await pool.load(Update(1))  # type: ignore[arg-type]
        fake.actors[0].fail["generate"] = EngineDied("gone")
        generating = asyncio.create_task(pool.generate(visit(0), SAMPLING))
        await asyncio.sleep(seconds - asyncio.get_running_loop().time())
        await pool.load(Update(2))  # type: ignore[arg-type]
        await generating

    virtual_time.run(job())

    assert fake.actors[1].held == [1, 2]


@pytest.mark.parametrize("seconds", [0.0, 5.0])  # before the worker dies, and while its successor starts
def test_a_replacement_starts_from_the_folder_that_the_weights_are_in_by_then(
    fake: FakeCluster, seconds: float
) -> None:
    async def job() -> None:
        pool = await started(1)
        await pool.load(Update(1))  # type: ignore[arg-type]
        fake.actors[0].fail["generate"] = EngineDied("gone")
        generating = asyncio.create_task(pool.generate(visit(0), SAMPLING))
        await asyncio.sleep(seconds)
        pool.now_hold("trained")
        await generating

    virtual_time.run(job())

    assert [setup.model_dir for setup in fake.actors[-1].setups] == ["trained"]
    assert fake.actors[-1].held == []
    assert fake.actors[-1].groups == [0]


@pytest.mark.parametrize("alone", [False, True])
def test_workers_that_take_adapters_alone_are_for_stage_3_and_not_for_the_model_it_ends_in(
    fake: FakeCluster, alone: bool
) -> None:
    given = ["learner.lora={targets: [q_proj]}", f"transfer.adapters={alone}", "engine.workers=1"]
    recipe = load_recipe(WORDS, given)

    async def job() -> None:
        async with RolloutWorkers(recipe) as workers:
            await workers.holding("fine-tuned")
            await workers.holding("fine-tuned", to_train=True)
            workers.now_hold("reinforced")
            await workers.holding("reinforced")

    virtual_time.run(job())

    others = [("fine-tuned", recipe.learner.lora), ("reinforced", None)] if alone else []
    setups = [setup for actor in fake.actors for setup in actor.setups]
    assert [(setup.model_dir, setup.adapters) for setup in setups] == [("fine-tuned", None), *others]


def test_a_worker_that_dies_in_an_update_does_not_hold_up_the_others(fake: FakeCluster) -> None:
    async def job() -> float:
        pool = await started(3)
        fake.actors[1].fail["load"] = RayActorError()
        before = asyncio.get_running_loop().time()
        await pool.load(Update(1))  # type: ignore[arg-type]
        return asyncio.get_running_loop().time() - before

    assert virtual_time.run(job()) == pytest.approx(1.0)
    assert [actor.held for actor in fake.actors[:3]] == [[1], [], [1]]


def test_a_worker_that_hangs_in_an_update_is_replaced_after_a_limit_of_its_own(fake: FakeCluster) -> None:
    async def job() -> float:
        setup = EngineSetup("model", Engine(workers=3), ImageLimits())
        pool = await RolloutPool.start(setup, 60.0, 5.0)
        fake.actors[1].hangs = True
        before = asyncio.get_running_loop().time()
        await pool.load(Update(1))  # type: ignore[arg-type]
        return asyncio.get_running_loop().time() - before

    assert virtual_time.run(job()) == pytest.approx(5.0)
    assert [actor.held for actor in fake.actors[:3]] == [[1], [], [1]]
    assert fake.actors[1].killed


@pytest.mark.parametrize(("per_update", "per_wait"), [(300.0, 600.0), (600.0, 300.0), (40.0, 1500.0)])
def test_a_broadcast_comes_to_its_limit_well_before_the_wait_for_its_worker(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, per_update: float, per_wait: float
) -> None:
    monkeypatch.setattr(
        cluster.broadcast_sender.ray, "get_runtime_context", lambda: SimpleNamespace(current_actor="me")
    )
    sender = sender_of(Transfer(through=Through.NCCL, seconds_per_update=per_update), per_wait)
    offer = sender.publish(1, [{"norm": torch.ones(2)}])
    assert isinstance(offer, Offer)

    async def job() -> float:
        pool = await RolloutPool.start(EngineSetup("model", Engine(workers=2), ImageLimits()), per_wait, per_update)
        fake.checksum, fake.actors[1].hangs = offer.checksum, True
        before = asyncio.get_running_loop().time()
        await pool.load(offer)
        return asyncio.get_running_loop().time() - before

    assert offer.seconds == pytest.approx(virtual_time.run(job()) / 2)


def test_prompts_wait_here_and_not_at_an_engine_that_has_enough_of_them(fake: FakeCluster) -> None:
    async def job() -> list[int]:
        pool, seen = await started(2, sequences_at_once=8), []
        prompts = [visit(number).prompt for number in range(20)]
        sampling = asyncio.create_task(sample_each(pool, prompts, 4, SAMPLING, lambda *_: None))
        await asyncio.sleep(0.5)
        seen.append(pool.in_flight)
        sampling.cancel()
        await asyncio.wait([sampling])
        return seen

    assert virtual_time.run(job()) == [8]  # of 2 engines that batch two groups of 4 samples each, as many again


def test_a_worker_that_found_other_weights_is_given_them_once_more(fake: FakeCluster) -> None:
    async def job() -> float:
        pool = await started(2)
        fake.actors[1].wrong = 1
        before = asyncio.get_running_loop().time()
        await pool.load(Update(1))  # type: ignore[arg-type]
        return asyncio.get_running_loop().time() - before

    assert virtual_time.run(job()) == pytest.approx(2.0)
    assert [actor.held for actor in fake.actors] == [[1], [1]]


def test_a_worker_that_dies_as_it_is_given_weights_again_is_replaced_like_any(fake: FakeCluster) -> None:
    async def job() -> RolloutPool:
        pool = await started(1)
        fake.actors[0].wrong = 1
        loading = asyncio.create_task(pool.load(Update(1)))  # type: ignore[arg-type]
        await asyncio.sleep(1.5)
        fake.actors[0].fail["load"] = EngineDied("gone")
        await loading
        await pool.generate(visit(0), SAMPLING)
        return pool

    assert virtual_time.run(job()).restarts == 1
    assert [actor.held for actor in fake.actors] == [[], [1]]


def test_weights_that_are_wrong_twice_end_the_run(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(2)
        fake.checksum = "other"
        await pool.load(Update(1))  # type: ignore[arg-type]

    with pytest.raises(WrongWeights, match="checksum other after version 1, the learner sent good"):
        virtual_time.run(job())


def test_a_worker_that_joins_while_a_run_goes_on_holds_the_newest_weights_before_its_first_visit(
    fake: FakeCluster,
) -> None:
    async def job() -> RolloutPool:
        pool = await started(1, workers_at_most=3)
        await pool.load(Update(1))  # type: ignore[arg-type]
        fake.crowded = True
        pool.grow()
        await asyncio.sleep(1000.0)  # longer than any wait that has a limit
        _, early, late = fake.rooms
        early.there.set()
        await asyncio.sleep(10.5)  # it has started and is loading version 1
        await pool.load(Update(2))  # type: ignore[arg-type]
        await asyncio.sleep(1.0)
        await asyncio.gather(*(pool.generate(visit(n), SAMPLING) for n in range(4)))
        assert not late.there.is_set()
        return pool

    pool = virtual_time.run(job())

    assert [(actor.held, len(actor.groups)) for actor in fake.actors] == [([1, 2], 2), ([1, 2], 2)]
    assert len({setup.seed for actor in fake.actors for setup in actor.setups}) == 2
    assert (pool.size, pool.metrics["live/rollout"]) == (2, 2.0)


def test_wrong_weights_of_a_replacement_end_the_run_too(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(1)
        await pool.load(Update(1))  # type: ignore[arg-type]
        fake.checksum = "other"
        fake.actors[0].fail["generate"] = EngineDied("gone")
        await pool.generate(visit(0), SAMPLING)

    with pytest.raises(NoWorkers) as raised:
        virtual_time.run(job())

    assert isinstance(raised.value.__cause__, WrongWeights)


def test_a_worker_that_never_starts_fails_the_start_and_leaves_no_actor(fake: FakeCluster) -> None:
    fake.failures = {number: {"start": EngineDied("no memory")} for number in (1, 2, 3)}

    with pytest.raises(NoWorkers, match="rollout-1 could not be started in 3 attempts"):
        virtual_time.run(started(2))

    assert fake.actors[0].killed
    assert fake.actors[3].killed


def test_a_visit_that_fails_everywhere_is_given_up_with_its_number(fake: FakeCluster) -> None:
    async def job() -> None:
        pool = await started(1)
        for _ in range(3):
            fake.actors[0].fail["generate"] = EngineError("no")
            await asyncio.sleep(0)
        fake.actors[0]._raise = lambda method: _always(method)  # type: ignore[method-assign]
        await pool.generate(visit(7), SAMPLING)

    def _always(method: str) -> None:
        if method == "generate":
            raise EngineError("no")

    with pytest.raises(EngineError, match="group 7: 3 attempts failed"):
        virtual_time.run(job())


@pytest.mark.parametrize("death", [RayActorError(), OutOfMemoryError("95%")])
def test_closing_ends_every_actor_also_one_that_has_died(fake: FakeCluster, death: Exception) -> None:
    async def job() -> None:
        pool = await started(2)
        fake.actors[0].fail["close"] = death
        await pool.close()

    virtual_time.run(job())

    assert [actor.killed for actor in fake.actors] == [True, True]
