"""Workers that come and go with the room there is for them, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.hiring import SECONDS_OF_REST
from cluster.room import NoRoom
from cluster.supervisor import NoWorkers, Supervisor, Worker
from configs.bundles import Asked, Bundle
from rollout.engine import EngineDied
from tests.unit import virtual_time
from tests.unit.fake_room import FakeRoom

LIMIT = 100.0  # seconds that room is waited for while there are too few workers
FOREVER = 50 * LIMIT


class Place:
    """A supervisor of three workers, of which some are needed, on a cluster where each has room or has not."""

    def __init__(self, needed: int, crowded: Sequence[str] = ()) -> None:
        self.rooms = {name: FakeRoom(Asked(name, 1, Bundle(1, 0), "")) for name in ("a", "b", "c")}
        for name in crowded:
            self.rooms[name].there.clear()
        self.dying: dict[str, Exception] = {}  # as they start
        self.killed = 0
        self.starts: Counter[str] = Counter()
        self.supervisor = Supervisor(
            list(self.rooms),
            lambda _: object(),
            self._ready,
            kill=self._kill,
            room=lambda worker: self.rooms[worker.name],  # type: ignore[return-value, arg-type]
            seconds_for_room=LIMIT,
            needed=needed,
        )

    async def _ready(self, worker: Worker) -> None:
        await asyncio.sleep(1.0)
        self.starts[worker.name] += 1
        if error := self.dying.get(worker.name):
            raise error

    def _kill(self, _: object) -> None:
        self.killed += 1

    @property
    def live(self) -> list[str]:
        return [worker.name for worker in self.supervisor.live]

    async def grown(self) -> None:
        await self.supervisor.start()
        self.supervisor.grow()
        await asyncio.sleep(5.0)

    def lose_with_its_node(self, name: str) -> None:
        self.rooms[name].there.clear()
        (worker,) = [worker for worker in self.supervisor.workers if worker.name == name]
        self.supervisor.lost(worker, worker.actor, EngineDied("gone"))

    async def work(self) -> str:
        async def work(worker: Worker) -> str:
            return worker.name

        return await self.supervisor.do(work, "a piece")


def run(job: Any) -> None:
    virtual_time.run(job)


def test_a_start_has_those_it_needs_and_none_of_the_others() -> None:
    async def job() -> None:
        place = Place(needed=2)
        await place.supervisor.start()
        await asyncio.sleep(FOREVER)
        assert place.live == ["a", "b"]
        assert "worker/c/groups" not in place.supervisor.load("w")

    run(job())


def test_the_others_join_each_when_there_is_room_for_it_however_long_that_takes() -> None:
    async def job() -> None:
        place = Place(needed=1, crowded=["b", "c"])
        await place.grown()
        await asyncio.sleep(FOREVER)
        assert place.live == ["a"]
        place.rooms["c"].there.set()
        await asyncio.sleep(2.0)
        assert place.live == ["a", "c"]
        assert place.supervisor.load("w")["live/w"] == 2.0

    run(job())


def test_one_whose_node_is_gone_is_waited_for_without_a_limit_where_enough_are_left() -> None:
    async def job() -> None:
        place = Place(needed=1)
        await place.grown()
        place.lose_with_its_node("a")
        place.lose_with_its_node("b")
        await asyncio.sleep(FOREVER)
        assert await place.work() == "c"
        place.rooms["a"].there.set()
        await asyncio.sleep(2.0)
        assert place.live == ["a", "c"]

    run(job())


def test_with_too_few_the_wait_has_its_limit_from_when_they_became_too_few() -> None:
    async def job() -> None:
        place = Place(needed=2)
        await place.grown()
        place.lose_with_its_node("a")
        await asyncio.sleep(FOREVER)
        place.lose_with_its_node("b")
        await asyncio.sleep(LIMIT - 1.0)
        assert await place.work() == "c"
        await asyncio.sleep(2.0)
        with pytest.raises(NoWorkers) as raised:
            await place.work()
        assert isinstance(raised.value.__cause__, NoRoom)

    run(job())


def test_the_limit_is_lifted_when_enough_are_there_again() -> None:
    async def job() -> None:
        place = Place(needed=2)
        await place.grown()
        place.lose_with_its_node("a")
        place.lose_with_its_node("b")
        await asyncio.sleep(LIMIT / 2)
        place.rooms["a"].there.set()
        await asyncio.sleep(LIMIT / 2 - 5.0)
        place.lose_with_its_node("c")  # too few again, when the limit of the wait for b would be over
        await asyncio.sleep(LIMIT - 1.0)
        assert await place.work() == "a"
        await asyncio.sleep(2.0)
        with pytest.raises(NoWorkers):
            await place.work()

    run(job())


def test_a_start_without_room_ends_within_the_limit() -> None:
    async def job() -> None:
        with pytest.raises(NoRoom, match="no room for b"):
            await Place(needed=2, crowded=["b"]).supervisor.start()
        assert asyncio.get_running_loop().time() == LIMIT

    run(job())


def test_one_that_does_not_start_is_tried_again_after_a_rest_where_the_others_are_enough() -> None:
    async def job() -> None:
        place = Place(needed=2)
        place.dying["c"] = EngineDied("no memory")
        await place.grown()
        assert place.starts["c"] == 3
        await asyncio.sleep(SECONDS_OF_REST + 5.0)
        assert place.starts["c"] == 6
        place.dying.clear()
        await asyncio.sleep(SECONDS_OF_REST + 5.0)
        assert place.live == ["a", "b", "c"]

    run(job())


def test_what_no_attempt_would_mend_costs_no_run_that_can_do_without_and_leaves_no_actor() -> None:
    async def job() -> None:
        place = Place(needed=2)
        place.dying["c"] = FileNotFoundError("no model on this node")
        await place.grown()
        assert (place.starts["c"], place.killed) == (1, 1)
        await asyncio.sleep(SECONDS_OF_REST)
        assert (place.starts["c"], place.killed) == (2, 2)
        assert await place.work() in ("a", "b")

    run(job())


def test_one_that_does_not_start_is_the_end_where_it_is_needed() -> None:
    async def job() -> None:
        place = Place(needed=3)
        await place.grown()
        place.dying["a"] = EngineDied("no memory")
        worker, *_ = place.supervisor.workers
        place.supervisor.lost(worker, worker.actor, EngineDied("gone"))
        await asyncio.sleep(5.0)
        with pytest.raises(NoWorkers):
            await place.work()

    run(job())


def test_nobody_is_waited_for_after_the_close_and_no_room_is_kept() -> None:
    async def job() -> None:
        place = Place(needed=1, crowded=["b", "c"])
        await place.grown()
        for worker in place.supervisor.live:
            worker.live = False  # these actors have no `close`
        await place.supervisor.close(1.0, "a setting")
        assert all(room.removed for room in place.rooms.values())
        place.rooms["b"].there.set()
        await asyncio.sleep(5.0)
        assert place.starts["b"] == 0

    run(job())
