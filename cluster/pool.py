"""The rollout workers as one: groups are sampled by who has most room, and all take up new weights."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import ray
from numpy.typing import NDArray

from cluster.actor_names import next_name
from cluster.allocator import allocator_environment
from cluster.broadcast_sender import Offer
from cluster.group_limits import GroupLimits
from cluster.rollout_actor import CALLS_AT_ONCE, RolloutActor
from cluster.room import Room
from cluster.supervisor import Supervisor, Worker
from cluster.waiting import within
from cluster.weight_update import WeightUpdate, WrongWeights
from configs.bundles import rollout_workers
from configs.placement import Deal, engine_of
from configs.schema import GroupsPerWorker
from rollout.engine import EngineError, SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.worker import Visit

logger = logging.getLogger(__name__)


class RolloutPool:
    """Rollout workers under supervision."""

    def __init__(self, setup: EngineSetup, seconds_per_wait: float, seconds_per_update: float = math.inf) -> None:
        """Workers differ from `setup` in their seeds and, of its cores, in their own."""
        self._setup = setup
        self._seconds = seconds_per_wait
        self._seconds_per_update = min(seconds_per_update, seconds_per_wait)
        self._latest: WeightUpdate | Offer | None = None
        names = [f"rollout-{index}" for index in range(setup.settings.most_workers)]
        self._deal = Deal(setup.settings.cores)
        self._supervisor = Supervisor(
            names,
            self._make,
            self._ready,
            kill=self._kill,
            room=self._room,
            seconds_for_room=seconds_per_wait,
            needed=setup.settings.workers,
        )
        self._group_limits = GroupLimits(self._supervisor, setup.settings.sequences_at_once, self._occupancy)

    @classmethod
    async def start(cls, setup: EngineSetup, seconds_per_wait: float, seconds_per_update: float = math.inf) -> Self:
        """Start as many workers as a run needs, at once."""
        pool = cls(setup, seconds_per_wait, seconds_per_update)
        await pool.bring_up()
        return pool

    async def bring_up(self) -> None:
        """Start as many workers as a run needs; where one cannot be started, none is left."""
        try:
            await self._supervisor.start()
        except BaseException:
            await self.close()
            raise

    def grow(self) -> None:
        """From now on, let workers beyond those join as the cluster has room for them; called once."""
        self._supervisor.grow()

    @property
    def size(self) -> int:
        """Number of workers, those being replaced included where a run needs them."""
        return max(self._setup.settings.workers, len(self._supervisor.live))

    def enough(self, samples_per_group: int) -> int:
        """Visits that keep the engines busy: twice what they batch. More would wait there, on their own time."""
        batched = -(-self._setup.settings.sequences_at_once // samples_per_group)
        return 2 * batched * self.size

    @property
    def in_flight(self) -> int:
        """Visits being generated."""
        return sum(worker.busy for worker in self._supervisor.workers)

    @property
    def restarts(self) -> int:
        """Workers replaced since the start."""
        return self._supervisor.restarts

    @property
    def metrics(self) -> dict[str, float]:
        """What the log tells of the workers, since it last asked."""
        restarts = {"worker_restarts": float(self.restarts)}
        return {**restarts, **self._supervisor.load("rollout"), **self._group_limits.metrics()}

    async def keep_to(self, groups: GroupsPerWorker | int | None, samples_per_group: int) -> None:
        """Until it is cancelled, let no worker sample more groups at once; the others wait here for room."""
        await self._group_limits.keep(groups, samples_per_group)

    async def generate(
        self, visit: Visit, sampling: SamplingSettings, begins: Callable[[], None] | None = None
    ) -> ray.ObjectRef:
        """A reference to the encoded group of a visit; reissued to another worker where one fails.

        `begins` is called as a worker has room and the first attempt begins. Raises EngineError where every attempt
        failed, ValueError for a prompt that cannot be answered.
        """
        waiting = [begins] if begins is not None else []

        async def sample(worker: Worker) -> ray.ObjectRef:
            while waiting:
                waiting.pop()()
            # The first return says that the group is there; the group itself stays where it is.
            done, group = worker.actor.generate.options(num_returns=2).remote(visit, sampling)
            try:
                await within(done, self._seconds, f"{worker.name} to generate group {visit.group_id}")
            except asyncio.CancelledError:
                ray.cancel(done)  # nobody wants the group any more: the engine has others
                raise
            return group

        return await self._supervisor.do(sample, f"group {visit.group_id}")

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """What an engine gives the probe's tokens under that version: one engine, and at the next version another.

        None where newer weights came under it, and where it fails, of which the log tells; one that is lost over it is
        replaced.
        """
        found: list[NDArray[np.float32] | None] = []

        async def ask(worker: Worker) -> None:
            what = f"{worker.name} to score the probe under weight version {version}"
            found.append(await within(worker.actor.logprobs.remote(probe, version), self._seconds, what))

        if live := self._supervisor.live:
            worker = live[version % len(live)]
            try:
                await self._supervisor.let(worker, ask)
            except (EngineError, ValueError) as error:  # it is no reason to end a run
                logger.warning("%s, probe under weight version %d: %s", worker.name, version, error)
        return found[0] if found else None

    async def load(self, update: WeightUpdate | Offer) -> None:
        """Give every live worker new weights and check what it holds; one that fails is replaced.

        Workers that are being replaced get the newest weights before their first visit. Raises WrongWeights where one
        found others than were sent, twice.
        """
        self._latest = update
        await self._supervisor.each(lambda worker: self._hand_over(worker, update))

    def now_hold(self, model_dir: str) -> None:
        """The weights that were loaded last lie in `model_dir` as well: replacements start from there.

        The learner that published them may end then, and with it the references to them.
        """
        self._setup = replace(self._setup, model_dir=model_dir)
        self._latest = None

    async def close(self) -> None:
        """End the workers' processes."""
        await self._supervisor.close(self._seconds, "rl.seconds_per_wait")

    async def _hand_over(self, worker: Worker, update: WeightUpdate | Offer) -> None:
        held = await self._load(worker, update)
        if held != update.checksum:
            logger.warning("%s found other weights than version %d and takes it whole", worker.name, update.version)
            held = await self._load(worker, update)
        if held != update.checksum:
            raise WrongWeights(
                f"{worker.name} holds weights with checksum {held} after version {update.version}, "
                f"the learner sent {update.checksum}"
            )

    async def _load(self, worker: Worker, update: WeightUpdate | Offer) -> str:
        what = f"{worker.name} to load weight version {update.version}"
        limit, setting = self._seconds_per_update, "transfer.seconds_per_update"
        checksum: str = await within(worker.actor.load.remote(update), limit, what, setting)
        return checksum

    async def _occupancy(self, worker: Worker) -> Occupancy:
        return await within(worker.actor.occupancy.remote(), self._seconds, f"{worker.name} to say how full it is")

    def _room(self, worker: Worker) -> Room:
        return Room(rollout_workers(self._setup.settings).one(worker.name))

    def _make(self, worker: Worker) -> Any:
        assert worker.room is not None, "it is asked for before"
        variables = allocator_environment(self._setup.settings.gpus_per_worker)
        return RolloutActor.options(
            name=next_name(worker.name),
            max_concurrency=CALLS_AT_ONCE,
            **worker.room.options(),
            runtime_env={"env_vars": variables},
        ).remote(worker.name)

    def _kill(self, actor: Any) -> None:
        ray.kill(actor)

    async def _ready(self, worker: Worker) -> None:
        common = self._setup
        (node,) = worker.room.nodes() if worker.room else [""]
        own = replace(
            common,
            settings=engine_of(common.settings, self._deal.cores(worker.index, node)),
            seed=common.seed + 1 + worker.index,  # else workers would sample the same
        )
        started = worker.actor.start.remote(own)
        seconds = await within(started, self._seconds, f"{worker.name} to start")
        logger.info("%s started in %.1f s", worker.name, seconds)
        loaded = None
        while (update := self._latest) is not loaded and update is not None:  # a newer one may come meanwhile
            await self._hand_over(worker, update)
            loaded = update
        if own.model_dir != self._setup.model_dir:
            raise EngineError(f"{worker.name} was to start from {self._setup.model_dir} meanwhile")
