"""What becomes of a stage whose learner loses a rank, in virtual time: tasks stand for the ranks' calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

import cluster.learners
from cluster.learner_loss import SECONDS_TO_TELL, LearnerLost, results_of, through_losses
from cluster.learners import LearnerGroup
from cluster.waiting import WaitedTooLong, within
from configs.bundles import learner_ranks
from configs.schema import Learner
from learner.policy import Rank
from tests.unit import virtual_time
from tests.unit.fake_room import FakeRoom


async def ends(after: float, outcome: Any) -> Any:
    await asyncio.sleep(after)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def asked(*ranks: Coroutine[Any, Any, Any], limit: float = math.inf) -> list[Any]:
    calls = {f"learner-{n}": asyncio.create_task(rank) for n, rank in enumerate(ranks)}
    return await results_of(calls, "step", limit)


def until(seconds: float, name: str) -> Coroutine[Any, Any, Any]:
    """A call that does not end, and the wait for it that does."""
    reference: Any = ends(1e6, "never")
    return within(reference, seconds, f"{name} to step")


def test_results_come_in_the_order_of_the_ranks() -> None:
    assert virtual_time.run(asked(ends(2, "a"), ends(1, "b"))) == ["a", "b"]


@pytest.mark.parametrize("death", [RayActorError(), OutOfMemoryError("95%")], ids=["died", "out of memory"])
@pytest.mark.parametrize("seconds", [1.0, 3.0], ids=["before its peer", "after its peer"])
def test_a_lost_rank_is_named_whoever_fails_first(seconds: float, death: Exception) -> None:
    peer = RuntimeError("connection closed by peer")

    with pytest.raises(LearnerLost, match=r"learner-1 was lost in `step`"):
        virtual_time.run(asked(ends(2, peer), ends(seconds, death)))


def test_ranks_that_wait_for_a_lost_one_are_not_waited_for() -> None:
    async def job() -> float:
        with pytest.raises(LearnerLost):
            await asked(ends(1e6, "its own limit"), ends(1, RayActorError()))
        return asyncio.get_running_loop().time()

    assert virtual_time.run(job()) == 1.0


def test_a_rank_that_fails_by_itself_is_told_as_it_is_though_others_still_wait_for_it() -> None:
    async def job() -> float:
        with pytest.raises(OSError, match="no space"):
            await asked(ends(1, OSError("no space")), ends(1e6, "its own limit"))
        return asyncio.get_running_loop().time()

    assert virtual_time.run(job()) == 1.0 + SECONDS_TO_TELL


@pytest.mark.parametrize("seconds", [100.0, 55.0], ids=["pending", "its own wait ends too"])
def test_a_rank_that_hangs_is_named_as_those_that_wait_for_it_come_to_their_limit(seconds: float) -> None:
    waited = [
        RuntimeError(f"[gloo/tcp/buffer.cc:78] Timed out waiting 50000ms for {what}") for what in ("recv", "send")
    ]

    async def job() -> float:
        with pytest.raises(
            WaitedTooLong, match=r"learner-0 waited in `step` for learner-2: .*rl.seconds_per_wait"
        ) as told:
            await asked(ends(50, waited[0]), ends(50.5, waited[1]), until(seconds, "learner-2"), limit=50.0)
        assert told.value.__cause__ is waited[0]
        return asyncio.get_running_loop().time()

    assert virtual_time.run(job()) == min(50 + SECONDS_TO_TELL, seconds)


def test_ranks_that_come_after_their_peers_limit_are_told_with_the_limit() -> None:
    timeout, closed = RuntimeError("Timed out waiting 50000ms for recv"), RuntimeError("Connection closed by peer")

    with pytest.raises(
        WaitedTooLong, match=r"learner-1 waited in `step` for its peers: .*rl.seconds_per_wait.*50000ms"
    ):
        virtual_time.run(asked(ends(52, closed), ends(50, timeout), limit=50.0))


def test_where_all_waits_end_at_once_all_ranks_are_named_in_order() -> None:
    with pytest.raises(WaitedTooLong, match="learner-0, learner-1, learner-2 to step"):
        virtual_time.run(asked(*(until(60, f"learner-{n}") for n in range(3)), limit=30.0))


def test_one_rank_whose_wait_ends_is_named_alone() -> None:
    with pytest.raises(WaitedTooLong, match="waited 60 s for learner-1 to step"):
        virtual_time.run(asked(ends(2, "done"), until(60, "learner-1"), limit=30.0))
    with pytest.raises(WaitedTooLong, match="waited 60 s for learner-0 to step"):
        virtual_time.run(asked(until(60, "learner-0"), limit=30.0))


def test_a_rank_that_hangs_is_named_where_the_processes_of_those_that_wait_for_it_end() -> None:
    with pytest.raises(LearnerLost, match=r"learner-0 was lost in `step`, as it waited for learner-1 or by itself"):
        virtual_time.run(asked(ends(50, RayActorError()), until(100, "learner-1"), limit=50.0))


def test_ranks_have_a_shorter_limit_for_each_other_than_the_wait_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Rank] = []

    async def starts(rank: Rank) -> None:
        given.append(rank)

    methods = {"address": lambda: ends(0.0, "here:1"), "start": starts}
    actor = SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})
    monkeypatch.setattr(cluster.learners, "_actor", lambda *_: actor)

    async def job() -> None:
        room: Any = FakeRoom(learner_ranks(settings))
        await LearnerGroup.start(object, settings, (), 60.0, room)

    settings = Learner(ranks=2)
    virtual_time.run(job())

    assert [rank.seconds_per_collective for rank in given] == [30.0, 30.0]
    assert 30.0 + SECONDS_TO_TELL < 60.0


def test_a_rank_that_is_lost_before_it_says_where_it_is_met_is_a_lost_rank_too(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = SimpleNamespace(address=SimpleNamespace(remote=lambda: ends(1.0, RayActorError())))
    settings, killed = Learner(ranks=1), list[object]()
    monkeypatch.setattr(cluster.learners, "_actor", lambda *_: dying)
    monkeypatch.setattr(cluster.learners.ray, "kill", killed.append)

    async def job() -> None:
        room: Any = FakeRoom(learner_ranks(settings))
        with pytest.raises(LearnerLost, match="learner-0 was lost in `address`"):
            await LearnerGroup.start(object, settings, (), 60.0, room)
        assert room.removed

    virtual_time.run(job())
    assert killed == [dying]


class Stage:
    """Ends as it is told; a checkpoint of a later step is written before each ending that `checkpoints` says."""

    def __init__(self, folder: Path, endings: list[BaseException | None], checkpoints: bool = True) -> None:
        self._folder, self._endings, self._checkpoints = folder, endings, checkpoints
        self.done: list[str] = []

    async def run(self) -> None:
        self.done.append("run")
        if self._checkpoints:
            (self._folder / f"step-{len(self.done):06d}").mkdir()
        if ending := self._endings.pop(0):
            raise ending

    async def clear(self) -> None:
        self.done.append("clear")


@pytest.mark.parametrize(
    "loss",
    [
        LearnerLost("learner-1"),
        ObjectLostError("ab", "owner", "site"),
        ExceptionGroup("loops", [ExceptionGroup("visits", [LearnerLost("learner-1")]), RuntimeError("follows")]),
    ],
    ids=["rank", "object", "in a group"],
)
def test_a_stage_goes_on_as_often_as_it_got_further_before_it_was_lost(tmp_path: Path, loss: BaseException) -> None:
    stage = Stage(tmp_path, [loss, loss, None])

    asyncio.run(through_losses(tmp_path, stage.run, stage.clear))

    assert stage.done == ["run", "clear", "run", "clear", "run"]


def test_a_stage_that_is_lost_twice_at_the_same_place_ends_with_what_was_lost(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [LearnerLost("learner-0"), LearnerLost("learner-1")], checkpoints=False)

    with pytest.raises(LearnerLost, match="learner-1"):
        asyncio.run(through_losses(tmp_path, stage.run, stage.clear))

    assert stage.done == ["run", "clear", "run"]


def test_what_is_no_loss_ends_a_stage_at_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [ExceptionGroup("loops", [ValueError("training has diverged")])])

    with pytest.raises(ExceptionGroup, match="loops"):
        asyncio.run(through_losses(tmp_path, stage.run, stage.clear))

    assert stage.done == ["run"]
