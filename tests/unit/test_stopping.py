"""Signals to a job: who is told, what is given up, and when the process ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from cluster.stopped import Stopped
from cluster.stopping import stopped_before_it_began, until_told_to_stop

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A job that was told to stop leaves the signals their own effect: it is about to end, the tests are not."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_tells_who_has_something_to_save_and_lets_it_end_by_itself(number: signal.Signals) -> None:
    async def job() -> list[str]:
        done, stop = [], asyncio.Event()
        async with until_told_to_stop(stop.set, 60.0):
            os.kill(os.getpid(), number)
            await stop.wait()
            done.append("saved")
        return done

    assert asyncio.run(job()) == ["saved"]


def test_what_has_nothing_to_save_is_given_up_once_it_has_closed_what_it_opened() -> None:
    closed = []

    async def job() -> None:
        async with until_told_to_stop():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                closed.append("the workers")

    with pytest.raises(Stopped, match=r"^stopped; the same command goes on"):
        asyncio.run(job())
    assert closed == ["the workers"]


def test_a_step_that_takes_too_long_is_given_up() -> None:
    async def job() -> None:
        async with until_told_to_stop(lambda: None, 0.05):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Stopped, match="within a step, which took more than 0 s"):
        asyncio.run(job())


def test_the_innermost_block_is_told_and_what_closes_around_it_left_in_peace() -> None:
    async def job() -> list[object]:
        stop = asyncio.Event()
        async with until_told_to_stop():
            async with until_told_to_stop(stop.set, 60.0):
                os.kill(os.getpid(), signal.SIGTERM)
                await stop.wait()
            await asyncio.sleep(0.01)  # in which the outer one would give it up
            return [signal.getsignal(number) for number in SIGNALS]

    assert asyncio.run(job()) == [signal.SIG_DFL] * 2  # a signal now is the second one


def test_a_signal_in_a_blocks_last_moment_is_not_lost() -> None:
    async def job() -> None:
        stop = asyncio.Event()
        async with until_told_to_stop():
            async with until_told_to_stop(stop.set, 60.0):
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(stop.wait(), 60.0)  # the next stage

    with pytest.raises(Stopped):
        asyncio.run(job())


def test_a_wait_that_fails_by_itself_is_not_taken_for_a_stop() -> None:
    async def job() -> None:
        async with until_told_to_stop():
            raise TimeoutError("a worker hangs")

    with pytest.raises(TimeoutError, match="a worker hangs"):
        asyncio.run(job())


def test_without_a_signal_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    async def job() -> None:
        async with until_told_to_stop():
            assert [signal.getsignal(number) for number in SIGNALS] != before

    asyncio.run(job())

    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_only_being_prepared_is_interrupted(number: signal.Signals) -> None:
    with pytest.raises(Stopped, match="before it began"), stopped_before_it_began():
        os.kill(os.getpid(), number)
        signal.pause()


def test_a_second_signal_ends_a_process_that_computes() -> None:
    code = """
    import asyncio, os, signal
    from cluster.stopping import until_told_to_stop

    async def job():
        async with until_told_to_stop(lambda: None, 60.0):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            while True:  # it holds the event loop
                pass

    asyncio.run(job())
    """

    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, capture_output=True)

    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")
