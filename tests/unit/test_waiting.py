from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from cluster.waiting import WaitedTooLong, together, within
from rollout.engine import EngineDied
from tests.unit import virtual_time


async def answer(seconds: float, value: str) -> str:
    await asyncio.sleep(seconds)
    return value


def test_a_wait_ends_with_the_value() -> None:
    reference: Any = answer(1, "here")

    assert virtual_time.run(within(reference, 2, "an answer")) == "here"


def test_a_wait_that_reaches_its_limit_names_who_and_which_setting() -> None:
    reference: Any = answer(9, "late")

    with pytest.raises(WaitedTooLong, match=r"waited 2 s for reward-3 to score: .* raise reward_service.limit"):
        virtual_time.run(within(reference, 2, "reward-3 to score", "reward_service.limit"))


def test_what_an_actor_raised_comes_as_itself_with_its_trace_as_the_cause() -> None:
    async def fails() -> None:
        error: RayTaskError = RayTaskError("generate", "the trace in the actor", EngineDied("gone"))
        raise error.as_instanceof_cause()

    reference: Any = fails()

    with pytest.raises(EngineDied) as raised:
        virtual_time.run(within(reference, 2, "an answer"))

    assert type(raised.value) is EngineDied
    assert "the trace in the actor" in str(raised.value.__cause__)


def test_what_runs_together_gives_its_results_in_order() -> None:
    assert virtual_time.run(together(answer(2, "a"), answer(1, "b"))) == ["a", "b"]


def test_the_first_failure_cancels_the_others_and_is_raised_with_its_cause() -> None:
    cancelled = []

    async def waits() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fails() -> None:
        await asyncio.sleep(1)
        raise EngineDied("gone") from OSError("no memory")

    with pytest.raises(EngineDied, match="gone") as raised:
        virtual_time.run(together(waits(), together(waits(), fails())))

    assert cancelled == [True, True]
    assert isinstance(raised.value.__cause__, OSError)
