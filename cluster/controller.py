"""Stage 3's controller: six loops on one event loop. The parts do not know it; it wires them.

    prompts ──admit──▶ rollout workers ──groups──▶ reward service
       ▲                     ▲                         │
       │ gate                │ weights v+1             │ records, references
       │                     │                         ▼
     ledger ◀──trained──── learner ranks ◀──batch─── buffer

References and small records pass through here, never payloads: groups go from worker to reward
service to learner, and weights from learner to workers, through the object store.

| loop    | does                               | blocks on                   | unblocked by                         |
|---------|------------------------------------|-----------------------------|--------------------------------------|
| limit   | keeps workers to their groups      | its timer                   |                                      |
| admit   | opens visits of prompts            | the gate is closed          | workers confirmed new weights, drops |
| visit   | (a task each) samples and scores   | a worker, a scorer; bounded | their result, death or limit; `drop` |
| collect | puts scored groups into the buffer | no visit has ended          | a visit ended                        |
| train   | steps, publishes, checkpoints      | no batch is ready; bounded  | collect                              |
| probe   | asks an engine about the probe    | the weights are not new     | workers confirmed new weights        |
| observe | says what a standing run waits for | its timer                   |                                      |

A batch is not ready where it has too few groups; under `rl.stale_groups: wait` also where it would make a running
group too old. Under `drop` it is taken, and the visits of such groups are cancelled before the next one.

`version` is the number of batches trained on, and the name of the weights after them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass

from cluster.broadcast_sender import Offer
from cluster.dealing import deal
from cluster.dropped import SAMPLING, SCORING, Dropped, dropped_for
from cluster.gauges import Phase
from cluster.groups import Batch, Groups, Scored
from cluster.job_checkpoints import JobCheckpoints
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.pool import RolloutPool
from cluster.probing import Probing
from cluster.rewarding import RewardService
from cluster.run_log import RunLog
from cluster.step_log import StepLog
from cluster.visits import Visits
from cluster.waiting import WaitedTooLong
from cluster.weight_update import WeightUpdate
from configs.schema import Recipe, RewardWeights
from learner.ledger import DropReason
from learner.rl import RlReport
from rollout.engine import SamplingSettings
from rollout.worker import Visit

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_OBSERVATIONS = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the controller wires together."""

    visits: Visits
    pool: RolloutPool
    rewards: RewardService
    learners: LearnerGroup
    checkpoints: JobCheckpoints
    weights: LiveWeights
    log: RunLog


class Controller:
    """Runs stage 3 from `version` to the last step, or until it is told to stop."""

    def __init__(self, recipe: Recipe, parts: Parts) -> None:
        self._recipe = recipe
        self._parts = parts
        self._groups = Groups(recipe.rl, lambda: asyncio.get_running_loop().time())
        self._log = StepLog(parts.log, recipe.rewards)
        self._probing = Probing(parts.pool.logprobs)
        self._sampling = SamplingSettings(recipe.rl.temperature, recipe.rl.response_tokens)
        self._visits: dict[int, asyncio.Task[None]] = {}  # those whose group is neither collected nor given up
        self._version = 0
        self._confirmed = 0  # newest version that every worker holds
        self._changed = asyncio.Condition()
        self._ended: asyncio.Queue[tuple[Visit, Scored | DropReason]] = asyncio.Queue()
        self._stopping = False
        self._wake: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Train; returns the version reached. Raises what any loop raised, with the others cancelled."""
        await self._restore()
        limit = self._parts.pool.keep_to(self._recipe.rl.groups_per_worker, self._recipe.rl.samples_per_prompt)
        async with asyncio.TaskGroup() as loops:
            beside = (limit, self._admit(), self._collect(), self._probe(), self._observe())
            others = [loops.create_task(loop) for loop in beside]
            await loops.create_task(self._train(loops))
            for loop in others:
                loop.cancel()
        await self._checkpoint(last=True)
        return self._version

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def stop(self) -> None:
        """Admit nothing more, and end after the step that is under way, with a checkpoint."""
        self._stopping = True
        self._wake = asyncio.create_task(self._notify())

    def calibration_by_lag(self) -> str:
        """The table of everything trained on, the steps before a resume included."""
        return self._log.calibration_by_lag()

    async def _admit(self) -> None:
        async with asyncio.TaskGroup() as visits:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._stopping and self._groups.room(self._confirmed))
                visit = self._parts.visits.visit(self._groups.open(self._parts.visits.prompt_id))
                self._visits[visit.group_id] = visits.create_task(self._visit(visit))

    async def _visit(self, visit: Visit) -> None:
        def begins() -> None:  # once a worker has room: newer weights may have come meanwhile
            self._groups.started(visit.group_id, self._confirmed)
            clock.enter_context(self._log.clocks.visit())

        ended: Scored | DropReason
        try:
            with dropped_for(SAMPLING), ExitStack() as clock:
                sampled = await self._parts.pool.generate(visit, self._sampling, begins)
            with dropped_for(SCORING):
                ended = await self._parts.rewards.score(sampled, visit)
        except Dropped as dropped:
            logger.error("group %d of prompt %s is dropped, %s", visit.group_id, visit.prompt.prompt_id, dropped)
            ended = dropped.reason
        await self._ended.put((visit, ended))

    async def _collect(self) -> None:
        while True:
            visit, ended = await self._ended.get()
            if self._visits.pop(visit.group_id, None) is None:
                continue  # given up while its result was on the way here
            if isinstance(ended, DropReason):
                self._groups.failed(visit.group_id, self._version, ended)
            else:
                record, group = ended
                self._groups.complete(record, group)
                self._log.clocks.rolled(record.response_tokens)
            await self._notify()

    async def _train(self, loops: asyncio.TaskGroup) -> None:
        rl = self._recipe.rl
        broadcast: asyncio.Task[None] | None = None
        while self._version < rl.steps:
            waiting = time.perf_counter()
            self._parts.log.phase(Phase.WAITING)
            batch = await self._batch()
            if batch is None:
                break
            self._parts.log.phase(Phase.TRAINING)
            await self._step(batch, time.perf_counter() - waiting)
            self._version += 1
            self._parts.log.phase(Phase.PUBLISHING)
            if broadcast is not None:
                await broadcast
            update, *_ = await self._parts.learners.call("publish", self._version)
            # The learner goes on while the workers take up the weights; a failure there ends the run.
            broadcast = loops.create_task(self._apply(update))
            if self._version % rl.checkpoint_every_steps == 0 and self._version < rl.steps:
                await self._checkpoint()
        if broadcast is not None:
            await broadcast

    async def _batch(self) -> Batch | None:
        """The next batch; None when the run is to stop."""
        for group_id in self._groups.sweep(self._version):
            self._visits.pop(group_id).cancel()
        await self._notify()  # there may be room
        limit = self._recipe.rl.seconds_per_wait
        try:
            async with asyncio.timeout(limit), self._changed:
                found = await self._changed.wait_for(lambda: self._stopping or self._groups.take(self._version))
        except TimeoutError:
            raise WaitedTooLong(
                f"no batch of {self._recipe.rl.prompts_per_step} in {limit:.0f} s: "
                f"{self._groups.describe(self._version)}. Look at the workers' logs, or raise rl.seconds_per_wait"
            ) from None
        return found if isinstance(found, list) else None

    async def _step(self, batch: Batch, waited: float) -> None:
        weights = self._parts.weights.current(self._version + 1)
        shares = deal(batch, self._parts.learners.size, self._recipe.rl.minibatches)
        reports: list[RlReport] = await self._parts.learners.call_each(
            "step", [(share, weights, self._version, self._probing.probe) for share in shares]
        )
        self._probing.trained(self._version, reports[0])
        records = self._groups.trained(batch, self._version)
        self._log.write(self._version, records, reports, weights, self._others(weights, waited))

    def _others(self, weights: RewardWeights, waited: float) -> dict[str, float | None]:
        """What the log tells of a step beside its groups and the learner's report."""
        return {
            **self._groups.metrics(self._version, weights, self._recipe.rewards),
            **self._parts.rewards.counts,
            **self._parts.pool.metrics,
            "checkpoints_failed": float(self._parts.checkpoints.failed),
            "learner_wait_seconds": waited,
            "probe": self._probing.read(),
        }

    async def _apply(self, update: WeightUpdate | Offer) -> None:
        """Give new weights to the workers; admission counts on them from then on."""
        started, in_flight = time.perf_counter(), self._parts.pool.in_flight
        await self._parts.pool.load(update)
        self._log.clocks.updated(time.perf_counter() - started, in_flight, update.nbytes)
        self._confirmed = update.version
        await self._notify()

    async def _probe(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._probing.due(self._confirmed))
            await self._probing.ask(self._confirmed)

    async def _observe(self) -> None:
        while True:
            version = self._version
            await asyncio.sleep(SECONDS_BETWEEN_OBSERVATIONS)
            if self._version == version:
                logger.warning(
                    "no step in %.0f s: version %d, %d visits in flight, %s",
                    SECONDS_BETWEEN_OBSERVATIONS,
                    version,
                    self._parts.pool.in_flight,
                    self._groups.describe(version),
                )

    async def _checkpoint(self, *, last: bool = False) -> None:
        self._parts.log.phase(Phase.SAVING)
        state = {
            "version": self._version,
            "weights": self._parts.weights.current(self._version + 1).model_dump(),
            **self._groups.state_dict(),
            **self._log.state_dict(),
        }
        await self._parts.checkpoints.save(self._version, state, self._groups.untrained, last=last)

    async def _restore(self) -> None:
        """Go on from the newest good checkpoint; groups that were not complete then are sampled again."""
        found = await self._parts.checkpoints.restore()
        self._parts.log.back_to(found.step if found else 0)
        if found is None:
            return
        again = self._groups.load_state_dict(found.state, found.groups)
        self._log.load_state_dict(found.state)
        self._parts.weights.restore(found.state["weights"])
        self._version = self._confirmed = found.state["version"]
        if self._version > 0:
            update, *_ = await self._parts.learners.call("publish", self._version)
            await self._parts.pool.load(update)
        told = "resumed at step %d: %d complete groups are taken up, %d are sampled again"
        logger.warning(told, found.step, len(found.groups), len(again))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
