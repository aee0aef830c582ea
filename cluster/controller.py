"""Stage 3's controller: four loops on one event loop. The parts do not know it; it wires them.

    prompts ──admit──▶ rollout workers ──groups──▶ reward service
       ▲                     ▲                         │
       │ gate                │ weights v+1             │ records, references
       │                     │                         ▼
     ledger ◀──trained──── learner ranks ◀──batch─── buffer

References and small records pass through here, never payloads: groups go from worker to reward
service to learner, and weights from learner to workers, through the object store.

| loop    | does                               | blocks on                   | unblocked by                         |
|---------|------------------------------------|-----------------------------|--------------------------------------|
| admit   | opens visits of prompts            | the gate is closed          | workers confirmed new weights, drops |
| visit   | (a task each) samples and scores   | a worker, a scorer; bounded | their result, death or limit; `drop` |
| collect | puts scored groups into the buffer | no visit has ended          | a visit ended                        |
| train   | steps, publishes, checkpoints      | no batch is ready; bounded  | collect                              |
| observe | says what a standing run waits for | its timer                   |                                      |

A batch is not ready where it has too few groups; under `rl.stale_groups: wait` also where it would make a running
group too old. Under `drop` it is taken, and the visits of such groups are cancelled before the next one.

`version` is the number of batches trained on, and the name of the weights after them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass

import ray

from cluster.calibration_by_lag import CalibrationByLag
from cluster.checkpoints import CheckpointFolder
from cluster.clocks import Clocks
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.monitors import Monitor
from cluster.pool import RolloutPool
from cluster.records import GroupRecord
from cluster.rewarding import RewardService
from cluster.run_log import RunLog
from cluster.selection import Selection
from cluster.step_metrics import batch_metrics, malformed_causes
from cluster.visits import Visits
from cluster.waiting import WaitedTooLong
from cluster.weight_update import WeightUpdate
from configs.schema import Recipe, RewardWeights
from learner.buffer import Buffer, Entry
from learner.gate import AdmissionGate
from learner.ledger import DropReason, Ledger
from learner.rl import RlReport
from rollout.engine import EngineError, SamplingSettings
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
    checkpoints: CheckpointFolder
    weights: LiveWeights
    log: RunLog


class Controller:
    """Runs stage 3 from `version` to the last step, or until it is told to stop."""

    def __init__(self, recipe: Recipe, parts: Parts) -> None:
        rl = recipe.rl
        self._recipe = recipe
        self._parts = parts
        self._gate = AdmissionGate(rl.prompts_per_step, rl.max_policy_lag, rl.steps)
        self._buffer: Buffer[ray.ObjectRef] = Buffer(rl.prompts_per_step, rl.max_policy_lag, rl.stale_groups)
        self._ledger = Ledger()
        self._records: dict[int, GroupRecord] = {}
        self._visits: dict[int, asyncio.Task[None]] = {}  # those whose group is neither collected nor given up
        self._reissue: list[int] = []  # outstanding when the checkpoint was written
        limit = rl.groups_per_worker
        self._room = asyncio.Semaphore(limit * parts.pool.size) if limit else nullcontext()
        self._version = 0
        self._confirmed = 0  # newest version that every worker holds
        self._changed = asyncio.Condition()
        self._ended: asyncio.Queue[tuple[Visit, GroupRecord | None, ray.ObjectRef | None]] = asyncio.Queue()
        self._stopping = False
        self._wake: asyncio.Task[None] | None = None
        self._clocks = Clocks()
        self._monitor = Monitor()
        self._selection = Selection(lambda: asyncio.get_running_loop().time())
        self._by_lag = CalibrationByLag()

    async def run(self) -> int:
        """Train; returns the version reached. Raises what any loop raised, with the others cancelled."""
        await self._restore()
        async with asyncio.TaskGroup() as loops:
            others = [loops.create_task(loop()) for loop in (self._admit, self._collect, self._observe)]
            await loops.create_task(self._train(loops))
            for loop in others:
                loop.cancel()
        await self._checkpoint()
        return self._version

    def calibration_by_lag(self) -> str:
        """The table of everything trained on, the steps before a resume included."""
        return self._by_lag.table()

    def stop(self) -> None:
        """End after the step that is under way, with a checkpoint."""
        logger.warning("stopping after the step that is under way")
        self._stopping = True
        self._wake = asyncio.create_task(self._notify())

    async def _admit(self) -> None:
        async with asyncio.TaskGroup() as visits:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._reissue or self._gate.room(self._confirmed) > 0)
                if self._reissue:
                    group_id = self._reissue.pop(0)
                else:
                    group_id = self._ledger.next_id
                    self._gate.admit()
                    self._ledger.admit(group_id, self._parts.visits.prompt_id(group_id))
                visit = self._parts.visits.visit(group_id)
                self._visits[group_id] = visits.create_task(self._visit(visit))

    async def _visit(self, visit: Visit) -> None:
        rl = self._recipe.rl
        sampling = SamplingSettings(rl.temperature, rl.response_tokens)
        record, group = None, None
        try:
            async with self._room:
                # Only here: while it waited for room, newer weights may have come.
                self._buffer.started(visit.group_id, self._confirmed)
                self._selection.started(visit.group_id, self._confirmed)
                with self._clocks.visit():
                    sampled = await self._parts.pool.generate(visit, sampling)
            record, group = await self._parts.rewards.score(sampled, visit)
        except EngineError as error:
            logger.error("group %d of prompt %s is dropped: %s", visit.group_id, visit.prompt.prompt_id, error)
        await self._ended.put((visit, record, group))

    async def _collect(self) -> None:
        while True:
            visit, record, group = await self._ended.get()
            if self._visits.pop(visit.group_id, None) is None:
                continue  # given up while its result was on the way here
            if record is None or group is None:
                self._buffer.abandoned(visit.group_id)
                self._selection.gave_up(visit.group_id, self._version)
                self._drop(visit.group_id, DropReason.GENERATION_FAILED)
            else:
                self._complete(record, group)
            await self._notify()

    def _complete(self, record: GroupRecord, group: ray.ObjectRef) -> None:
        self._selection.ended(record)
        if len(record.scored) < 2:  # no baseline, no advantage
            self._buffer.abandoned(record.group_id)
            self._selection.dropped(record)
            self._drop(record.group_id, DropReason.SCORING_FAILED)
        else:
            self._records[record.group_id] = record
            self._buffer.add(Entry(record.group_id, record.oldest_version, record.response_tokens, group))
            self._clocks.rolled(record.response_tokens)

    def _drop(self, group_id: int, reason: DropReason) -> None:
        self._ledger.dropped(group_id, reason)
        self._gate.drop()

    def _sweep(self) -> None:
        """Whatever the policy for slow groups: from here on nothing is held or runs that is too old to be trained."""
        for entry in self._buffer.sweep(self._version):
            self._selection.dropped(self._records.pop(entry.group_id))
            self._drop(entry.group_id, DropReason.STALE)
        for group_id in self._buffer.give_up(self._version):
            self._visits.pop(group_id).cancel()
            self._selection.gave_up(group_id, self._version)
            self._drop(group_id, DropReason.TOO_SLOW)

    async def _train(self, loops: asyncio.TaskGroup) -> None:
        rl = self._recipe.rl
        broadcast: asyncio.Task[None] | None = None
        while self._version < rl.steps:
            waiting = time.perf_counter()
            batch = await self._batch()
            if batch is None:
                break
            waited = time.perf_counter() - waiting
            weights = self._parts.weights.current(self._version + 1)
            reports = await self._step(batch, weights)
            records = [self._records.pop(entry.group_id) for entry in batch]
            self._buffer.release(entry.group_id for entry in batch)
            for entry in batch:
                self._ledger.trained(entry.group_id, self._version)
            self._log(records, reports, weights, waited)
            self._version += 1
            if broadcast is not None:
                await broadcast
            update, *_ = await self._parts.learners.call("publish", self._version)
            # The learner goes on while the workers take up the weights; a failure there ends the run.
            broadcast = loops.create_task(self._apply(update))
            if self._version % rl.checkpoint_every_steps == 0 and self._version < rl.steps:
                await self._checkpoint()
        if broadcast is not None:
            await broadcast

    async def _batch(self) -> list[Entry[ray.ObjectRef]] | None:
        """The next batch; None when the run is to stop."""
        self._sweep()
        await self._notify()  # there may be room
        limit = self._recipe.rl.seconds_per_wait
        try:
            async with asyncio.timeout(limit), self._changed:
                found = await self._changed.wait_for(lambda: self._stopping or self._take())
        except TimeoutError:
            raise WaitedTooLong(
                f"no batch in {limit:.0f} s: {len(self._buffer.running)} groups in generation or scoring, "
                f"{len(self._buffer.held)} complete, {self._recipe.rl.prompts_per_step} needed. {self._awaited()}"
                "Look at the workers' logs, or raise rl.seconds_per_wait"
            ) from None
        return found if isinstance(found, list) else None

    def _take(self) -> list[Entry[ray.ObjectRef]] | None:
        batch = self._buffer.take(self._version)
        if batch is not None:
            self._selection.taken(self._version)
        elif awaited := self._buffer.awaited(self._version):
            self._selection.held_back(len(awaited))
        return batch

    def _awaited(self) -> str:
        awaited = sorted(self._buffer.awaited(self._version))
        if not awaited:
            return ""
        return f"A full batch waits for groups {awaited}, which the step would make too old (rl.stale_groups). "

    async def _step(self, batch: list[Entry[ray.ObjectRef]], weights: RewardWeights) -> list[RlReport]:
        """Each minibatch gets as many groups, of all ages; the controller's batch is in the order of admission."""
        count = self._recipe.rl.minibatches
        dealt = [self._dealt(batch[number::count]) for number in range(count)]
        return await self._parts.learners.call_each(
            "step", [([*minibatches], weights, self._version) for minibatches in zip(*dealt, strict=True)]
        )

    def _dealt(self, groups: list[Entry[ray.ObjectRef]]) -> list[list[ray.ObjectRef]]:
        """A minibatch dealt to the ranks so that each gets a group, and about as many tokens."""
        shares: list[list[Entry[ray.ObjectRef]]] = [[] for _ in range(self._parts.learners.size)]
        for entry in sorted(groups, key=lambda entry: -entry.tokens):
            min(shares, key=lambda share: (sum(e.tokens for e in share), len(share))).append(entry)
        return [[entry.payload for entry in sorted(share, key=lambda entry: entry.group_id)] for share in shares]

    async def _apply(self, update: WeightUpdate) -> None:
        """Give new weights to the workers; admission counts on them from then on."""
        started, in_flight = time.perf_counter(), self._parts.pool.in_flight
        await self._parts.pool.load(update)
        self._clocks.updated(time.perf_counter() - started, in_flight, update.nbytes)
        self._confirmed = update.version
        await self._notify()

    async def _observe(self) -> None:
        while True:
            version = self._version
            await asyncio.sleep(SECONDS_BETWEEN_OBSERVATIONS)
            if self._version == version:
                logger.warning(
                    "no step in %.0f s: version %d, %d visits in flight, %d groups unfinished, %d waiting. %s",
                    SECONDS_BETWEEN_OBSERVATIONS,
                    version,
                    self._parts.pool.in_flight,
                    len(self._buffer.running),
                    len(self._buffer.held),
                    self._awaited(),
                )

    def _log(self, records: list[GroupRecord], reports: list[RlReport], weights: RewardWeights, waited: float) -> None:
        rewards = self._recipe.rewards
        metrics = batch_metrics(records, self._version, weights, rewards)
        selection = self._selection.read(self._version, weights, rewards) | self._by_lag.step(records, self._version)
        mix = {f"weight/{name}": weight for name, weight in weights.model_dump().items()}
        causes = {f"malformed/{cause}": float(n) for cause, n in malformed_causes(records).items()}
        drops = {f"dropped/{reason}": float(n) for reason, n in self._ledger.drop_counts().items()}
        clocks, service = self._clocks.read(), dict(self._parts.rewards.counts)
        learner = {
            **reports[0].metrics(),
            "learner_seconds": max(report.seconds for report in reports),
            "learner_tokens_per_second": sum(r.tokens for r in reports) / max(r.seconds for r in reports),
            "learner_wait_seconds": waited,
            "worker_restarts": float(self._parts.pool.restarts),
        }
        for warning in self._monitor.look(metrics | learner, self._version + 1):
            logger.warning("step %d: %s", self._version + 1, warning)
        self._parts.log.log(metrics | mix | learner | clocks | causes | drops | service | selection, self._version + 1)

    async def _checkpoint(self) -> None:
        folder = self._parts.checkpoints.begin(self._version)
        await self._parts.learners.call("save_checkpoint", str(folder), "learner")
        state = {
            "version": self._version,
            "ledger": self._ledger.state_dict(),
            "gate": self._gate.state_dict(),
            "weights": self._parts.weights.current(self._version + 1).model_dump(),
            "calibration_by_lag": self._by_lag.state_dict(),
        }
        self._parts.checkpoints.commit(self._version, state)

    async def _restore(self) -> None:
        """Go on from the newest checkpoint; groups that were not trained then are sampled again."""
        checkpoint = self._parts.checkpoints.latest()
        if checkpoint is None:
            return
        await self._parts.learners.call("load_checkpoint", str(checkpoint.folder), "learner")
        self._ledger.load_state_dict(checkpoint.state["ledger"])
        self._gate.load_state_dict(checkpoint.state["gate"])
        self._parts.weights.restore(checkpoint.state["weights"])
        self._by_lag.load_state_dict(checkpoint.state["calibration_by_lag"])
        self._version = self._confirmed = checkpoint.state["version"]
        self._reissue = list(self._ledger.outstanding())
        if self._version > 0:
            update, *_ = await self._parts.learners.call("publish", self._version)
            await self._parts.pool.load(update)
        logger.info("resumed at step %d with %d groups to sample again", self._version, len(self._reissue))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
