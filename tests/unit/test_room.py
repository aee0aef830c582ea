"""The wait for room on a cluster, in virtual time: what is told of it, and how it ends."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import cluster.room
from cluster.room import NoRoom, Room
from configs.bundles import Asked, Bundle
from tests.unit import virtual_time

RANKS = Asked("learner ranks", 4, Bundle(2, 1), "learner.ranks or gpus_per_rank")


class FakeGroups:
    """Stands for Ray's placement groups, all in one state and ready at once."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.ready: Future[None] = Future()
        self.state = "PENDING"
        self.removed = 0

    def make(self, *arguments: Any) -> SimpleNamespace:
        self.made.append(arguments)
        return SimpleNamespace(ready=lambda: SimpleNamespace(future=lambda: self.ready))

    def table(self, _: object) -> dict[str, str]:
        return {"state": self.state}

    def remove(self, _: object) -> None:
        self.removed += 1


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    fake = FakeGroups()
    monkeypatch.setattr(cluster.room, "placement_group", fake.make)
    monkeypatch.setattr(cluster.room, "placement_group_table", fake.table)
    monkeypatch.setattr(cluster.room, "remove_placement_group", fake.remove)
    monkeypatch.setattr(cluster.room, "nodes_here", lambda: [Bundle(8, 2), Bundle(8, 2)])
    monkeypatch.setattr(cluster.room, "free_here", lambda: Bundle(16, 3))
    return fake


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_bundle_for_each_actor_is_asked_for_on_few_nodes(groups: FakeGroups) -> None:
    Room(RANKS)

    ((bundles, strategy, name),) = groups.made
    assert (bundles, strategy) == ([{"CPU": 2, "GPU": 1}] * 4, "PACK")
    assert name.startswith("room of learner ranks")


def test_who_is_in_a_group_takes_its_bundles_of_the_same_size_and_gives_them_back(
    groups: FakeGroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.0}
    given = SimpleNamespace(bundle_specs=[small, *[large] * 5, small])
    monkeypatch.setattr(cluster.room.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster.room.ray.util, "get_current_placement_group", lambda: given)
    monkeypatch.setattr(cluster.room, "_in_use", set())

    def bundles(room: Room, number: int) -> list[int]:
        strategies = [room.options(n)["scheduling_strategy"] for n in range(number)]
        assert all(strategy.placement_group is given for strategy in strategies)
        return [strategy.placement_group_bundle_index for strategy in strategies]

    ranks = Room(RANKS)
    assert bundles(ranks, 4) == [1, 2, 3, 4]
    assert bundles(Room(replace(RANKS, count=1)), 1) == [5]
    with pytest.raises(NoRoom, match="has 0 such bundles left"):
        Room(RANKS)
    ranks.remove()
    ranks.remove()
    assert bundles(Room(RANKS), 4) == [1, 2, 3, 4]
    assert groups.made == []
    assert groups.removed == 0


def test_a_wait_is_told_of_ever_more_seldom_with_what_the_cluster_has(
    groups: FakeGroups, caplog: pytest.LogCaptureFixture
) -> None:
    async def job() -> None:
        waiting = asyncio.create_task(Room(RANKS).held(asyncio.timeout(1000.0)))
        await asyncio.sleep(9.0)
        assert lines(caplog) == []
        await asyncio.sleep(66.0)  # lines after 10, 30 and 70 s
        groups.ready.set_result(None)
        await waiting

    virtual_time.run(job())

    line = "waiting for room for 4 learner ranks, 2 CPUs and 1 GPU each: the cluster has 16 CPUs and 3 GPUs free "
    assert lines(caplog) == [f"{line}in all, on 2 nodes: 2 of 8 CPUs and 2 GPUs"] * 3


def test_a_wait_without_a_limit_is_told_of_once(groups: FakeGroups, caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        waiting = asyncio.create_task(Room(RANKS).held(asyncio.timeout(None)))
        await asyncio.sleep(1000.0)
        groups.ready.set_result(None)
        await waiting

    virtual_time.run(job())

    assert len(lines(caplog)) == 1


def test_a_wait_ends_with_who_asked_what_there_is_and_what_to_change(groups: FakeGroups) -> None:
    async def job() -> None:
        await Room(RANKS).held(asyncio.timeout(20.0))

    with pytest.raises(NoRoom) as caught:
        virtual_time.run(job())

    assert str(caught.value) == (
        "no room for 4 learner ranks, 2 CPUs and 1 GPU each: the cluster has 16 CPUs and 3 GPUs free in all, on "
        "2 nodes: 2 of 8 CPUs and 2 GPUs. Add nodes, wait for other jobs to end, lower learner.ranks or gpus_per_rank, "
        "or raise rl.seconds_per_wait"
    )


def test_a_limit_may_be_lifted_while_it_runs(groups: FakeGroups) -> None:
    async def job() -> None:
        limit = asyncio.timeout(5.0)
        waiting = asyncio.create_task(Room(RANKS).held(limit))
        await asyncio.sleep(4.0)
        limit.reschedule(None)
        await asyncio.sleep(100.0)
        groups.ready.set_result(None)
        await waiting

    virtual_time.run(job())


@pytest.mark.parametrize(("state", "made", "removed"), [("PENDING", 1, 0), ("CREATED", 1, 0), ("RESCHEDULING", 2, 1)])
def test_a_group_whose_node_was_lost_is_given_up_and_asked_for_anew(
    groups: FakeGroups, state: str, made: int, removed: int
) -> None:
    room = Room(RANKS)
    groups.state = state
    groups.ready.set_result(None)

    async def job() -> None:
        await room.held(asyncio.timeout(1.0))

    virtual_time.run(job())

    assert (len(groups.made), groups.removed) == (made, removed)
    assert all(asked[:2] == groups.made[0][:2] for asked in groups.made)


def test_actors_that_reserve_nothing_need_no_room(groups: FakeGroups) -> None:
    room = Room(Asked("reward workers", 2, Bundle(0, 0), "reward_service.workers"))

    async def job() -> None:
        await room.held(asyncio.timeout(1.0))
        room.remove()

    virtual_time.run(job())

    assert groups.made == []
    assert room.options(1) == {"num_cpus": 0, "num_gpus": 0}
    assert room.nodes() == ["", ""]
    assert groups.removed == 0


def test_it_is_given_up_with_the_block_it_was_for(groups: FakeGroups) -> None:
    with pytest.raises(ZeroDivisionError), Room(RANKS):
        raise ZeroDivisionError

    assert groups.removed == 1
