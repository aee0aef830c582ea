"""Who gets a place at a worker, and when; in virtual time."""

from __future__ import annotations

import asyncio

from cluster.supervisor import Supervisor, Worker
from tests.unit import virtual_time


async def one_worker(at_once: int) -> Supervisor:
    async def ready(_: Worker) -> None:
        await asyncio.sleep(1.0)

    supervisor = Supervisor(["w"], lambda _: object(), ready, at_once, kill=lambda _: None)
    await supervisor.start()
    return supervisor


def test_places_go_to_those_who_have_waited_longest() -> None:
    done: list[int] = []

    async def job() -> None:
        supervisor = await one_worker(at_once=2)

        async def piece(number: int) -> None:
            async def work(_: Worker) -> None:
                await asyncio.sleep(1.0)
                done.append(number)

            await supervisor.do(work, f"piece {number}")
            if number < 10:
                await piece(number + 10)  # asks again as soon as its place is free

        await asyncio.gather(*map(piece, range(6)))

    virtual_time.run(job())

    assert done == [*range(6), *range(10, 16)]


def test_the_load_is_what_each_has_and_what_waits_but_not_for_those_who_gave_up() -> None:
    async def job() -> dict[str, float]:
        supervisor = await one_worker(at_once=2)

        async def work(_: Worker) -> None:
            await asyncio.sleep(1.0)

        pieces = [asyncio.create_task(supervisor.do(work, "a piece")) for _ in range(5)]
        await asyncio.sleep(0.5)
        pieces[3].cancel()
        await asyncio.sleep(0.0)
        return supervisor.load("w")

    assert virtual_time.run(job()) == {
        "queue/w": 2.0,
        "live/w": 1.0,
        "worker/w/groups": 2.0,
        "worker/w/starts": 1.0,
    }


def test_whoever_is_cancelled_before_or_with_a_place_in_hand_keeps_none() -> None:
    async def job() -> list[int]:
        supervisor = await one_worker(at_once=1)
        release = asyncio.Event()
        done: list[int] = []

        async def piece(number: int) -> None:
            async def work(_: Worker) -> None:
                await release.wait()
                done.append(number)

            await supervisor.do(work, f"piece {number}")
            if number == 0:
                tasks[2].cancel()  # the place was handed to it, and it has not woken up yet

        tasks = [asyncio.create_task(piece(number)) for number in range(4)]
        await asyncio.sleep(1.0)
        tasks[1].cancel()
        release.set()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, True, False]
        assert supervisor.workers[0].busy == 0
        return done

    assert virtual_time.run(job()) == [0, 3]
