"""How many groups a worker has at once where it is to find out: by hand, and around simulated engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import fmean

import pytest

from cluster.concurrency import AdaptiveLimit
from cluster.group_limits import GroupLimits
from cluster.supervisor import Supervisor, Worker
from configs.schema import GroupsPerWorker
from rollout.engine import EngineDied, SamplingSettings
from rollout.occupancy import Occupancy, OccupancyMeter
from rollout.prompts import Message, Prompt
from rollout.simulated import SimulatedEngine, Simulation
from tests.unit import virtual_time

SAMPLES = 4
PROMPT = Prompt("p", "t", (Message("user", "?"),))


def limit_at(groups: int) -> AdaptiveLimit:
    """Of an engine whose batch holds 32 sequences, 8 groups of 4."""
    limit = AdaptiveLimit(SAMPLES, 32)
    limit.groups = groups
    return limit


# --- the rule


def test_it_begins_with_the_groups_that_fill_the_batch() -> None:
    assert AdaptiveLimit(4, 32).groups == 8
    assert AdaptiveLimit(5, 32).groups == 7
    assert AdaptiveLimit(8, 1).groups == 1


@pytest.mark.parametrize(
    ("found", "groups", "then"),
    [
        (Occupancy(unfinished=32, finished=0, waiting=0, kv_use=0.5, preempted=0), 8, 8),  # the batch is full
        (Occupancy(unfinished=24, finished=0, waiting=0, kv_use=0.1, preempted=0), 8, 10),  # eight places are free
        (
            Occupancy(unfinished=23, finished=0, waiting=0, kv_use=0.1, preempted=0),
            8,
            11,
        ),  # nine: a group more refills the batch
        (
            Occupancy(unfinished=8, finished=0, waiting=0, kv_use=0.5, preempted=0),
            8,
            10,
        ),  # to 0.9 there is room for 6.4 like those
        (Occupancy(unfinished=8, finished=0, waiting=0, kv_use=0.95, preempted=0), 8, 8),  # above the mark
        (Occupancy(unfinished=0, finished=0, waiting=0, kv_use=0.0, preempted=0), 8, 16),  # nothing runs
        (
            Occupancy(unfinished=16, finished=0, waiting=0, kv_use=0.1, preempted=0),
            5,
            8,
        ),  # fewer groups came than it may have
        (
            Occupancy(unfinished=35, finished=0, waiting=3, kv_use=0.5, preempted=0),
            9,
            8,
        ),  # a queue of less than a group is as well
        (Occupancy(unfinished=48, finished=0, waiting=13, kv_use=0.5, preempted=0), 12, 8),
        (Occupancy(unfinished=20, finished=0, waiting=9, kv_use=1.0, preempted=0), 5, 3),  # for want of keys and values
        (Occupancy(unfinished=32, finished=0, waiting=0, kv_use=0.9, preempted=1), 8, 6),  # 85 percent
        (Occupancy(unfinished=32, finished=0, waiting=12, kv_use=0.9, preempted=1), 8, 5),  # three groups of it wait
        (
            Occupancy(unfinished=32, finished=0, waiting=8, kv_use=0.9, preempted=1),
            10,
            8,
        ),  # lowered before, not down there yet
        (Occupancy(unfinished=4, finished=0, waiting=0, kv_use=1.0, preempted=1), 1, 1),  # never less than one
        (Occupancy(unfinished=4, finished=0, waiting=4, kv_use=1.0, preempted=0), 1, 1),
    ],
)
def test_the_limit_follows_what_the_engine_says(found: Occupancy, groups: int, then: int) -> None:
    limit = limit_at(8)

    limit.saw(found, groups)

    assert limit.groups == then


def test_after_the_cache_ran_out_a_group_is_added_when_as_many_as_there_are_have_ended() -> None:
    limit = limit_at(8)
    limit.saw(Occupancy(unfinished=32, finished=9, waiting=0, kv_use=0.9, preempted=1), 8)
    grown = []

    for finished in (12, 11, 1, 27, 1):
        limit.saw(Occupancy(unfinished=20, finished=finished, waiting=0, kv_use=0.5, preempted=0), limit.groups)
        grown.append(limit.groups)

    assert grown == [6, 6, 7, 7, 8]  # after 24 requests of 6 groups, and after 28 of 7


def test_a_meter_tells_the_shortest_queue_and_all_preemptions_since_it_was_read() -> None:
    meter = OccupancyMeter()
    with meter.request():
        with meter.request():
            for waiting, kv_use, preempted in ((7, 0.2, 0), (2, 0.3, 1), (5, 0.4, 2)):
                meter.saw(waiting, kv_use, preempted)

        assert meter.read() == Occupancy(1, 1, 2, 0.4, 3)
        assert meter.read() == Occupancy(1, 0, 5, 0.4, 0)  # no step since: as after the last one
        meter.saw(6, 0.5, 0)
        assert meter.read() == Occupancy(1, 0, 6, 0.5, 0)


# --- around engines


@dataclass
class Outcome:
    tokens_per_second: float
    limits: list[float]  # of worker 0, every ten seconds
    preempted: float  # requests
    most_waiting: float


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def trial(
    groups: GroupsPerWorker | int | None,
    simulation: Simulation,
    *,
    engines: int = 1,
    sequences_at_once: int = 32,
    seconds: float = 300.0,
    wanted_at_once: int = 10_000,
) -> Outcome:
    """Groups are asked for as fast as they can be had, for so many simulated seconds."""

    async def job() -> Outcome:
        made = [SimulatedEngine(simulation, seed) for seed in range(engines)]

        async def ready(_: Worker) -> None:
            pass

        async def ask(worker: Worker) -> Occupancy:
            found = made[worker.index].occupancy()
            seen.append(found)
            return found

        seen: list[Occupancy] = []
        tokens, limits = [0], []
        names = [f"w{index}" for index in range(engines)]
        supervisor = Supervisor(names, lambda worker: made[worker.index], ready, kill=lambda _: None)
        await supervisor.start()
        keeping = asyncio.create_task(GroupLimits(supervisor, sequences_at_once, ask).keep(groups, SAMPLES))

        async def group(worker: Worker) -> None:
            sampling = SamplingSettings(1.0, 100_000)
            outputs = [made[worker.index].generate(PROMPT, sampling) for _ in range(SAMPLES)]
            lengths = [len(output.tokens) for output in await asyncio.gather(*outputs)]
            tokens[0] += sum(lengths)

        async def customer() -> None:
            while True:
                await supervisor.do(group, "a group")

        await asyncio.sleep(0)
        busy = engines * (groups if isinstance(groups, int) else 100)
        customers = [asyncio.create_task(customer()) for _ in range(min(busy + 10, wanted_at_once))]
        for _ in range(int(seconds / 10)):
            await asyncio.sleep(10.0)
            limits.append(supervisor.workers[0].at_once)
        await ended(keeping, *customers)
        return Outcome(
            tokens[0] / seconds,
            limits,
            sum(found.preempted for found in seen),
            max((found.waiting for found in seen), default=0),
        )

    return virtual_time.run(job())


TAILS = Simulation(median_tokens=100, length_spread=1.3, seconds_per_token=0.05, sequences_at_once=32)
MOST = 32 / 0.05  # tokens a second of its 32 places


def test_with_long_tails_the_engine_does_not_idle_where_the_fixed_number_that_fills_it_lets_it() -> None:
    fixed, adaptive = (trial(groups, TAILS) for groups in (8, GroupsPerWorker.ADAPTIVE))

    assert fixed.tokens_per_second < 0.5 * MOST
    assert adaptive.tokens_per_second > 0.85 * MOST
    assert min(adaptive.limits) > 8


def test_no_queue_stands_before_the_engine() -> None:
    adaptive, all_admitted = (trial(groups, TAILS) for groups in (GroupsPerWorker.ADAPTIVE, 100))

    assert adaptive.tokens_per_second > 0.95 * all_admitted.tokens_per_second
    assert max(adaptive.limits) < 50
    assert adaptive.most_waiting < 5 * SAMPLES


def test_constant_lengths_need_no_more_groups_than_fill_the_batch() -> None:
    simulation = Simulation(median_tokens=100, length_spread=0.0, seconds_per_token=0.05, sequences_at_once=32)

    adaptive = trial(GroupsPerWorker.ADAPTIVE, simulation)

    assert max(adaptive.limits) <= 9
    assert adaptive.tokens_per_second > 0.85 * MOST


def test_where_keys_and_values_are_short_few_requests_are_put_back_and_little_is_lost() -> None:
    # Room for about 34 sequences of their mean length, while the batch has 64 places, 16 groups.
    simulation = Simulation(
        median_tokens=100, length_spread=0.5, seconds_per_token=0.05, sequences_at_once=64, kv_tokens=2500
    )

    best, adaptive = (trial(groups, simulation, sequences_at_once=64) for groups in (8, GroupsPerWorker.ADAPTIVE))

    assert 6 < fmean(adaptive.limits) < 10
    assert adaptive.preempted < 0.1 * preempted_with(16, simulation)
    assert adaptive.tokens_per_second > 0.9 * best.tokens_per_second


def preempted_with(groups: int, simulation: Simulation) -> float:
    """By an engine that has so many groups at once."""

    async def job() -> float:
        engine = SimulatedEngine(simulation, 0)

        async def customer() -> None:
            while True:
                sampling = SamplingSettings(1.0, 100_000)
                await asyncio.gather(*(engine.generate(PROMPT, sampling) for _ in range(SAMPLES)))

        customers = [asyncio.create_task(customer()) for _ in range(groups)]
        await asyncio.sleep(300.0)
        await ended(*customers)
        return engine.occupancy().preempted

    return virtual_time.run(job())


def test_without_demand_the_limit_stays() -> None:
    assert set(trial(GroupsPerWorker.ADAPTIVE, TAILS, wanted_at_once=2).limits) == {8}


# --- its place among the supervisor's


async def supervised(
    ask: Callable[[Worker], Awaitable[Occupancy]], workers: int = 2
) -> tuple[Supervisor, GroupLimits, asyncio.Task[None]]:
    async def ready(_: Worker) -> None:
        await asyncio.sleep(5.5)

    names = [f"w{index}" for index in range(workers)]
    supervisor = Supervisor(names, lambda _: object(), ready, kill=lambda _: None)
    await supervisor.start()
    limits = GroupLimits(supervisor, 32, ask)
    return supervisor, limits, asyncio.create_task(limits.keep(GroupsPerWorker.ADAPTIVE, SAMPLES))


def test_a_worker_whose_engine_died_is_replaced_and_begins_anew() -> None:
    async def job() -> None:
        dead: set[int] = set()

        async def ask(worker: Worker) -> Occupancy:
            if worker.index in dead:
                dead.discard(worker.index)
                raise EngineDied("gone")
            return Occupancy(unfinished=8, finished=0, waiting=8 if worker.index else 0, kv_use=0.5, preempted=0)

        supervisor, limits, keeping = await supervised(ask)
        supervisor.workers[1].busy = 4
        await asyncio.sleep(1.5)
        assert [worker.at_once for worker in supervisor.workers] == [8, 2]
        assert limits.metrics()["engine/groups"] == 2.0
        dead.add(1)
        await asyncio.sleep(1.2)
        assert limits.metrics()["engine/groups"] == 0.0  # of the one that is there
        await asyncio.sleep(5.0)
        assert supervisor.restarts == 1
        assert [worker.at_once for worker in supervisor.workers] == [8, 8]
        assert limits.metrics()["engine/groups_at_most"] == 8
        await ended(keeping)
        assert limits.metrics() == {}
        assert [worker.at_once for worker in supervisor.workers] == [float("inf")] * 2

    virtual_time.run(job())


def test_what_an_engine_cannot_say_ends_the_watch_with_its_error() -> None:
    async def job() -> None:
        async def ask(_: Worker) -> Occupancy:
            raise ZeroDivisionError

        *_, keeping = await supervised(ask)
        with pytest.raises(ExceptionGroup) as caught:
            await keeping
        assert caught.group_contains(ZeroDivisionError)

    virtual_time.run(job())


def test_work_goes_to_the_worker_with_most_room() -> None:
    async def job() -> list[str]:
        async def ready(_: Worker) -> None:
            pass

        supervisor = Supervisor(["small", "large"], lambda _: object(), ready, kill=lambda _: None)
        await supervisor.start()
        small, large = supervisor.workers
        supervisor.limit(small, 2)
        supervisor.limit(large, 4)
        given: list[str] = []

        async def work(worker: Worker) -> None:
            given.append(worker.name)
            await asyncio.sleep(1.0)

        await asyncio.gather(*(supervisor.do(work, "a piece") for _ in range(6)))
        return given

    assert virtual_time.run(job()) == ["large", "large", "small", "large", "small", "large"]
