"""Gate, buffer and ledger around simulated engines: a small controller in virtual time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.choices import StaleGroups
from learner.buffer import Buffer, Entry
from learner.gate import AdmissionGate
from learner.ledger import DropReason, Ledger
from rollout.engine import EngineError, SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.simulated import SimulatedEngine, Simulation
from tests.unit import virtual_time

SAMPLES_PER_GROUP = 2
SAMPLING = SamplingSettings(temperature=1.0, response_tokens=4096)
WEIGHTS = {"w": np.zeros(1, np.float32)}


@dataclass
class Run:
    """What the controller will do, on a small scale. `batches` is what was trained on."""

    lag: int
    seed: int
    size: int = 3
    steps: int = 150
    workers: int = 3
    failure: float = 0.0  # of a request; it is reissued
    scorer_failure: float = 0.0  # of a group; it is dropped
    stale_groups: StaleGroups = StaleGroups.WAIT
    length_spread: float = 1.2
    batches: list[list[Entry[None]]] = field(default_factory=list)
    waits: int = 0  # steps that waited for a group though a full batch was complete

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.gate = AdmissionGate(self.size, self.lag, self.steps)
        self.buffer: Buffer[None] = Buffer(self.size, self.lag, self.stale_groups)
        self.generating: dict[int, asyncio.Task[None]] = {}
        self.ledger = Ledger()
        simulation = Simulation(
            length_spread=self.length_spread,
            tokens_per_chunk=32,
            seconds_per_token=0.01,
            seconds_per_update=0.05,
            failure_probability=self.failure,
        )
        self.engines = [SimulatedEngine(simulation, self.seed * 100 + k) for k in range(self.workers)]
        self.confirmed_by = [0] * self.workers
        self.version = 0

    @property
    def confirmed(self) -> int:
        return min(self.confirmed_by)

    async def main(self) -> None:
        self.changed = asyncio.Event()
        self.tasks = [asyncio.create_task(self.broadcast(worker)) for worker in range(self.workers)]
        self.tasks.append(asyncio.create_task(self.admit()))
        await self.train()
        for task in (*self.tasks, *self.generating.values()):
            if task.done() and not task.cancelled():
                task.result()
            task.cancel()

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def admit(self) -> None:
        while True:
            while self.gate.room(self.confirmed):
                group_id = self.ledger.next_id
                self.gate.admit()
                self.ledger.admit(group_id, f"prompt-{group_id % 7}")
                self.generating[group_id] = asyncio.create_task(self.generate(group_id))
                await asyncio.sleep(self.chance.choice([0.0, 0.01]))
            await self.changed.wait()

    async def generate(self, group_id: int) -> None:
        while True:
            engine = self.chance.choice(self.engines)
            prompt = Prompt(f"prompt-{group_id}", "emoji", (Message("user", "How?"),))
            self.buffer.started(group_id, self.confirmed)
            try:
                outputs = [await engine.generate(prompt, SAMPLING) for _ in range(SAMPLES_PER_GROUP)]
                break
            except EngineError:
                continue
        await asyncio.sleep(self.chance.expovariate(20))
        if self.chance.random() < self.scorer_failure:
            self.buffer.abandoned(group_id)
            self.drop(group_id, DropReason.SCORING_FAILED)
        else:
            oldest = min(span.version for output in outputs for span in output.version_spans)
            tokens = sum(len(output.tokens) for output in outputs)
            self.buffer.add(Entry(group_id, oldest, tokens, None))
        self.notify()

    def drop(self, group_id: int, reason: DropReason) -> None:
        self.gate.drop()
        self.ledger.dropped(group_id, reason)
        self.notify()

    def sweep(self) -> None:
        for entry in self.buffer.sweep(self.version):
            self.drop(entry.group_id, DropReason.STALE)
        for group_id in self.buffer.give_up(self.version):
            self.generating[group_id].cancel()
            self.drop(group_id, DropReason.TOO_SLOW)

    async def train(self) -> None:
        while self.version < self.steps:
            self.sweep()
            batch = self.buffer.take(self.version)
            if batch is None:
                self.waits += len(self.buffer.held) >= self.size
                await self.changed.wait()
                continue
            self.batches.append(batch)
            await asyncio.sleep(self.chance.expovariate(2))
            for entry in batch:
                self.ledger.trained(entry.group_id, self.version)
            self.buffer.release(entry.group_id for entry in batch)
            self.version += 1
            self.notify()

    async def broadcast(self, worker: int) -> None:
        while True:
            version = self.version
            if version > self.confirmed_by[worker]:
                await asyncio.sleep(self.chance.expovariate(4))
                await self.engines[worker].update_weights(version, WEIGHTS)
                self.confirmed_by[worker] = version
                self.notify()
            else:
                await self.changed.wait()


def finished(run: Run) -> Run:
    virtual_time.run(run.main())
    return run


def assert_sound(run: Run) -> None:
    """No batch has a token that is too old, and every group has exactly one fate."""
    assert [len(batch) for batch in run.batches] == [run.size] * run.steps
    for version, batch in enumerate(run.batches):
        assert all(entry.oldest_version >= version - run.lag for entry in batch)
        assert [entry.group_id for entry in batch] == sorted(entry.group_id for entry in batch)
    trained = [entry.group_id for batch in run.batches for entry in batch]
    assert len(trained) == len(set(trained)) == run.ledger.trained_count
    assert sorted([*trained, *run.ledger.drops()]) == list(range(run.ledger.next_id))
    assert run.ledger.outstanding() == {}
    assert run.buffer.held == ()


FAILURE = st.sampled_from([0.0, 0.1])


@settings(max_examples=150)
@given(
    st.builds(
        Run,
        lag=st.integers(0, 5),
        seed=st.integers(0, 10**6),
        size=st.integers(1, 4),
        steps=st.integers(1, 25),
        workers=st.integers(1, 3),
        failure=FAILURE,
        scorer_failure=FAILURE,
        stale_groups=st.sampled_from(StaleGroups),
        length_spread=st.sampled_from([0.0, 1.0, 2.0]),  # 2.0: the slowest of ten takes 13 times the median
    )
)
def test_no_policy_for_slow_groups_ends_in_a_deadlock_or_trains_on_what_is_too_old(run: Run) -> None:
    assert_sound(finished(run))  # virtual time tells a deadlock at once

    allowed = {DropReason.SCORING_FAILED} if run.scorer_failure else set()
    if run.stale_groups is StaleGroups.DROP and run.lag > 0:
        allowed |= {DropReason.STALE, DropReason.TOO_SLOW}
    assert set(run.ledger.drop_counts()) <= allowed


def test_to_drop_is_never_to_wait_with_a_full_batch_and_costs_groups() -> None:
    run = finished(Run(lag=2, seed=0, stale_groups=StaleGroups.DROP))

    assert_sound(run)
    assert run.waits == 0
    assert run.ledger.drop_counts()[DropReason.TOO_SLOW] > 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("lag", [0, 1, 2, 4])
def test_no_token_is_too_old_and_no_group_is_dropped_for_it(lag: int, seed: int) -> None:
    run = finished(Run(lag, seed))

    assert_sound(run)
    assert run.ledger.drops() == {}


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_lost_requests_and_failed_scorers_cost_neither_the_bound_nor_the_end(lag: int) -> None:
    run = finished(Run(lag, seed=7, failure=0.1, scorer_failure=0.1))

    assert_sound(run)
    assert set(run.ledger.drop_counts()) == {DropReason.SCORING_FAILED}


def test_one_group_a_step_and_one_worker_is_sound_too() -> None:
    assert_sound(finished(Run(lag=3, seed=1, size=1, workers=1)))


def test_without_lag_the_batches_are_the_groups_in_the_order_of_their_admission() -> None:
    run = finished(Run(lag=0, seed=0))

    trained = [entry.group_id for batch in run.batches for entry in batch]
    assert trained == list(range(run.steps * run.size))
    assert all(entry.oldest_version == v for v, batch in enumerate(run.batches) for entry in batch)


def test_lag_is_used_and_the_wait_policy_is_put_to_the_test() -> None:
    run = finished(Run(lag=2, seed=0))

    lags = {version - entry.oldest_version for version, batch in enumerate(run.batches) for entry in batch}
    assert lags == {0, 1, 2}
    assert run.waits > 0
