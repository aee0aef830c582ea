"""Rollout workers and a learner without models, for benchmarks and tests: many engines to a process.

The real `RolloutPool` drives them. What it takes for the actor of a rollout worker is an `EngineHandle`, one engine of
many on a `SimulatedHost`, made as a Ray actor. All between engine and pool (sampling a group, decoding, encoding,
taking up weights) is the production worker's own code. The learner reads its groups and publishes a few weights.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from cluster.kept_groups import write_groups
from cluster.pool import RolloutPool
from cluster.rollout_actor import RolloutWorker
from cluster.supervisor import Worker
from cluster.transport import WholeSender
from cluster.weight_update import WeightUpdate
from configs.schema import Engine, Recipe, RewardWeights
from learner.file_sums import FileSum
from learner.rl import RlReport
from rollout.chat import ImageLimits
from rollout.checksum import checksum
from rollout.codec import decode_group
from rollout.engine import EngineDied, SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.simulated import SimulatedEngine, Simulation
from rollout.simulated_text import ResponseWriter
from rollout.worker import Visit


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the engines of a pool are like."""

    engines: int
    simulation: Simulation
    answers: tuple[str, ...]
    slow_every: int | None = None  # the first of so many is slow
    slow_factor: float = 4.0  # how much longer a slow one takes for a token

    def simulation_of(self, index: int) -> Simulation:
        """The simulation of one engine."""
        slow = self.slow_every is not None and index % self.slow_every == 0
        seconds = self.simulation.seconds_per_token * (self.slow_factor if slow else 1.0)
        return replace(self.simulation, seconds_per_token=seconds)


class SimulatedWorker(RolloutWorker):
    """A rollout worker whose engine is simulated."""

    def __init__(self, name: str, simulation: Simulation, tokenizer: Any, writer: ResponseWriter) -> None:
        super().__init__(name)
        self._simulation = simulation
        self._tokenizer = tokenizer
        self._writer = writer

    async def start(self, setup: EngineSetup) -> float:
        """Take the engine's place; there is nothing to load."""
        self._engine = SimulatedEngine(self._simulation, setup.seed, checksum=checksum, write=self._writer)  # type: ignore[arg-type, assignment]
        return 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Which engine of a host: the worker whose place in the pool it takes, and which start of that worker's."""

    index: int
    start: int


class SimulatedHost:
    """Rollout workers by place, on one event loop."""

    def __init__(self) -> None:
        self._workers: dict[Place, SimulatedWorker] = {}

    def prepare(self, model_dir: str, recipe: Recipe, fleet: Fleet) -> None:
        """What the engines to come will be like."""
        self._tokenizer = AutoTokenizer.from_pretrained(model_dir).backend_tokenizer
        self._fleet = fleet
        self._writer = ResponseWriter(self._tokenizer, recipe.response, fleet.answers)

    async def start(self, place: Place, setup: EngineSetup) -> float:
        """As the production actor's."""
        worker = SimulatedWorker(
            f"rollout-{place.index}", self._fleet.simulation_of(place.index), self._tokenizer, self._writer
        )
        seconds = await worker.start(setup)
        self._workers[place] = worker
        return seconds

    async def generate(self, place: Place, visit: Visit, sampling: SamplingSettings) -> tuple[None, bytes]:
        """As the production actor's."""
        return await self._worker(place).generate(visit, sampling)

    async def logprobs(self, place: Place, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """As the production actor's."""
        return await self._worker(place).logprobs(probe, version)

    async def load(self, place: Place, update: WeightUpdate) -> str:
        """As the production actor's."""
        return await self._worker(place).load(update)

    async def occupancy(self, place: Place) -> Occupancy:
        """As the production actor's."""
        return await self._worker(place).occupancy()

    async def close(self, place: Place) -> None:
        """End an engine, if it has not ended; what it has in flight fails."""
        if place in self._workers:
            await self._workers.pop(place).close()

    def _worker(self, place: Place) -> SimulatedWorker:
        if place not in self._workers:
            raise EngineDied(f"{place} has ended")
        return self._workers[place]


@dataclass(frozen=True, slots=True)
class _Method:
    """A host's method, for one of its engines."""

    method: Any
    place: Place

    def options(self, **options: Any) -> _Method:
        return _Method(self.method.options(**options), self.place)

    def remote(self, *arguments: Any) -> Any:
        return self.method.remote(self.place, *arguments)


class EngineHandle:
    """One engine of a host; to a pool what a handle of a rollout worker's actor is."""

    def __init__(self, host: Any, place: Place) -> None:
        self.start, self.generate = _Method(host.start, place), _Method(host.generate, place)
        self.load, self.close = _Method(host.load, place), _Method(host.close, place)
        self.occupancy, self.logprobs = _Method(host.occupancy, place), _Method(host.logprobs, place)


class SimulatedPool(RolloutPool):
    """The rollout pool over engines that share processes."""

    def __init__(self, hosts: Sequence[Any], setup: EngineSetup, seconds_per_wait: float) -> None:
        super().__init__(setup, seconds_per_wait)
        self._hosts = hosts

    def _make(self, worker: Worker) -> EngineHandle:
        host = self._hosts[worker.index % len(self._hosts)]
        return EngineHandle(host, Place(worker.index, worker.starts))

    def _kill(self, actor: EngineHandle) -> None:
        actor.close.remote()


@asynccontextmanager
async def simulated_pool(
    hosts: Sequence[Any], model_dir: str, recipe: Recipe, fleet: Fleet
) -> AsyncIterator[SimulatedPool]:
    """A pool of a fleet, spread over the hosts; its engines end with the context."""
    ray.get([host.prepare.remote(model_dir, recipe, fleet) for host in hosts])
    setup = EngineSetup(model_dir, Engine(workers=fleet.engines, cpus_per_worker=0), ImageLimits(), recipe.seed)
    pool = SimulatedPool(hosts, setup, recipe.rl.seconds_per_wait)
    await pool.bring_up()
    try:
        yield pool
    finally:
        await pool.close()


class SimulatedLearner:
    """A learner rank that reads its groups, takes its time, and learns nothing."""

    def prepare(self, seconds_per_step: float) -> None:
        """How long the steps to come take at least."""
        self._seconds = seconds_per_step

    def step(
        self,
        minibatches: Sequence[Sequence[ray.ObjectRef]],
        weights: RewardWeights,
        version: int,
        probe: Probe | None,
    ) -> RlReport:
        """Read the groups, as every learner must, and wait."""
        started = time.perf_counter()
        read = [decode_group(encoded) for groups in minibatches for encoded in ray.get(list(groups))]
        tokens = sum(len(t.sample.tokens) for group in read for t in group.trajectories)
        time.sleep(max(0.0, self._seconds - (time.perf_counter() - started)))
        seconds = time.perf_counter() - started
        return RlReport(0.0, None, 0.0, None, None, None, None, tokens, seconds)

    def publish(self, version: int) -> WeightUpdate:
        """A few weights, others for every version."""
        return WholeSender().publish(version, [{"simulated": torch.full((256,), float(version))}])

    def save_checkpoint(self, folder: str, groups_file: str, groups: Sequence[ray.ObjectRef]) -> None:
        """Only the groups are there to be saved."""
        path = Path(folder, groups_file)
        self._files = {str(path): write_groups(path, groups)}

    def checkpoint_files(self) -> dict[str, FileSum]:
        """The file that was written."""
        return self._files
