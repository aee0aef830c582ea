"""Every group from its admission to its end: what runs, what is complete, and what became of the rest.

Gate, buffer, ledger and the meters of selection must agree on each group's fate. It is told to them here, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray

from cluster.records import GroupRecord
from cluster.selection import Selection
from configs.schema import Rewards, RewardWeights, Rl
from learner.buffer import Buffer, Entry
from learner.gate import AdmissionGate
from learner.ledger import DropReason, Ledger

Batch = list[Entry[ray.ObjectRef]]
Scored = tuple[GroupRecord, ray.ObjectRef]  # what is kept here of a complete group, and where it lies


class Groups:
    """The groups of a run. Versions are the learner's, `confirmed` ones those that every worker holds."""

    def __init__(self, rl: Rl, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._gate = AdmissionGate(rl.prompts_per_step, rl.max_policy_lag, rl.steps)
        self._buffer: Buffer[ray.ObjectRef] = Buffer(rl.prompts_per_step, rl.max_policy_lag, rl.stale_groups)
        self._ledger = Ledger()
        self._selection = Selection(clock)
        self._records: dict[int, GroupRecord] = {}  # of complete groups that are not trained on yet
        self._reissue: list[int] = []  # outstanding when the checkpoint was written, and not complete

    def room(self, confirmed: int) -> bool:
        """Whether a group may be opened."""
        return bool(self._reissue) or self._gate.room(confirmed) > 0

    def open(self, prompt_id: Callable[[int], str]) -> int:
        """The id of the group to sample next: of one that a checkpoint left outstanding, or of a new one."""
        if self._reissue:
            return self._reissue.pop(0)
        group_id = self._ledger.next_id
        self._gate.admit()
        self._ledger.admit(group_id, prompt_id(group_id))
        return group_id

    def started(self, group_id: int, confirmed: int) -> None:
        """Its generation begins."""
        self._buffer.started(group_id, confirmed)
        self._selection.started(group_id, confirmed)

    def failed(self, group_id: int, version: int, reason: DropReason) -> None:
        """It could not be sampled or scored."""
        self._buffer.abandoned(group_id)
        self._selection.gave_up(group_id, version)
        self._drop(group_id, reason)

    def complete(self, record: GroupRecord, group: ray.ObjectRef) -> None:
        """It is sampled and scored."""
        self._selection.ended(record)
        if len(record.scored) < 2:  # no baseline, no advantage
            self._buffer.abandoned(record.group_id)
            self._selection.dropped(record)
            self._drop(record.group_id, DropReason.SCORING_FAILED)
        else:
            self._hold(record, group)

    def sweep(self, version: int) -> list[int]:
        """Drop what is too old to be trained on at `version`; returns those that still run, which are to be ended."""
        for entry in self._buffer.sweep(version):
            self._selection.dropped(self._records.pop(entry.group_id))
            self._drop(entry.group_id, DropReason.STALE)
        given_up = self._buffer.give_up(version)
        for group_id in given_up:
            self._selection.gave_up(group_id, version)
            self._drop(group_id, DropReason.TOO_SLOW)
        return given_up

    def take(self, version: int) -> Batch | None:
        """The batch to train on at `version`, if it is ready."""
        batch = self._buffer.take(version)
        if batch is not None:
            self._selection.taken(version)
        elif awaited := self._buffer.awaited(version):
            self._selection.held_back(len(awaited))
        return batch

    def trained(self, batch: Batch, version: int) -> list[GroupRecord]:
        """The batch took the learner from `version` to the next; returns its records."""
        self._buffer.release(entry.group_id for entry in batch)
        for entry in batch:
            self._ledger.trained(entry.group_id, version)
        return [self._records.pop(entry.group_id) for entry in batch]

    def describe(self, version: int) -> str:
        """What a learner at `version` waits for, in words."""
        told = f"{len(self._buffer.running)} groups in generation or scoring, {len(self._buffer.held)} complete"
        if awaited := sorted(self._buffer.awaited(version)):
            told += f"; a full batch waits for groups {awaited}, which the step would make too old (rl.stale_groups)"
        if drops := self._ledger.drop_counts():
            told += f"; dropped so far: {', '.join(f'{number} {reason}' for reason, number in drops.items())}"
        return told

    def metrics(self, version: int, weights: RewardWeights, rewards: Rewards) -> dict[str, float | None]:
        """What the buffer holds, drops since the run began, and what selection saw since it was last asked."""
        held = {
            "buffer/complete": float(len(self._buffer.held)),
            "buffer/running": float(len(self._buffer.running)),
        }
        counts = self._ledger.drop_counts()
        drops = {f"dropped/{reason}": float(counts[reason]) for reason in DropReason}
        return {**held, **drops, **self._selection.read(version, weights, rewards)}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` reads."""
        return {"ledger": self._ledger.state_dict(), "gate": self._gate.state_dict()}

    @property
    def untrained(self) -> Sequence[ray.ObjectRef]:
        """The complete groups that a state is to be kept with."""
        return [entry.payload for entry in self._buffer.held]

    def load_state_dict(self, state: Mapping[str, Any], complete: Iterable[Scored]) -> Sequence[int]:
        """Go on from there with the groups that were complete; returns the other outstanding ones.

        Those are to be sampled again, and `open` gives them out first. Raises ValueError for a complete group that is
        not outstanding.
        """
        self._ledger.load_state_dict(state["ledger"])
        self._gate.load_state_dict(state["gate"])
        outstanding = dict(self._ledger.outstanding())
        for record, group in complete:
            if outstanding.pop(record.group_id, None) is None:
                raise ValueError(f"group {record.group_id} is kept as untrained, and the ledger says it is not")
            self._buffer.started(record.group_id, record.oldest_version)
            self._hold(record, group)
        self._reissue = list(outstanding)
        return tuple(self._reissue)

    def _hold(self, record: GroupRecord, group: ray.ObjectRef) -> None:
        self._records[record.group_id] = record
        self._buffer.add(Entry(record.group_id, record.oldest_version, record.response_tokens, group))

    def _drop(self, group_id: int, reason: DropReason) -> None:
        self._ledger.dropped(group_id, reason)
        self._gate.drop()
