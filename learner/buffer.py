"""Which groups are trained on next. Holds small records and references, never the groups themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.choices import StaleGroups

Payload = TypeVar("Payload")


@dataclass(frozen=True, slots=True)
class Entry(Generic[Payload]):
    """A scored group that waits for its training."""

    group_id: int
    oldest_version: int  # weight version of the group's oldest token
    tokens: int  # response tokens of the group
    payload: Payload  # a reference to the encoded group; opaque here


class Buffer(Generic[Payload]):
    """Groups from the start of their generation to the end of their training.

    A group's deadline is the last learner version at which it may be trained: that of its oldest token
    plus max_policy_lag; while it runs, the confirmed version at its start stands for its oldest token.
    What is past its deadline is in no batch, whatever the policy for slow groups, which are two:

        wait   A batch may pass over a slow group only as long as every deadline can still be kept. With
               `AdmissionGate` before it no group ever goes stale; the proof is there.
        drop   A full batch is taken. Groups that it makes too old are given up (`give_up`) where they
               still run, and swept out (`sweep`) where more are due at once than a batch holds.

    A place is free only when its group was trained (`release`), abandoned, given up or swept out.
    """

    def __init__(self, groups_per_step: int, max_policy_lag: int, stale_groups: StaleGroups = StaleGroups.WAIT) -> None:
        self._groups_per_step = groups_per_step
        self._max_policy_lag = max_policy_lag
        self._waits = stale_groups is StaleGroups.WAIT
        self._running: dict[int, int] = {}  # confirmed version at the start, by group id
        self._ready: dict[int, Entry[Payload]] = {}
        self._taken: dict[int, Entry[Payload]] = {}

    @property
    def running(self) -> frozenset[int]:
        """Groups that are being generated or scored."""
        return frozenset(self._running)

    @property
    def held(self) -> tuple[Entry[Payload], ...]:
        """Every group that is complete and not yet trained, those in training included; by group id.

        What a checkpoint must keep.
        """
        return tuple(sorted((*self._ready.values(), *self._taken.values()), key=_by_id))

    def started(self, group_id: int, version: int) -> None:
        """A group's generation begins; `version` is confirmed by every live worker.

        Again for a group that is reissued after a worker's death: all of it is sampled anew.
        """
        if group_id in self._ready or group_id in self._taken:
            raise ValueError(f"group {group_id} cannot start: it is complete already")
        if version < self._running.get(group_id, 0):
            raise ValueError(
                f"group {group_id} starts again at version {version}, but began at {self._running[group_id]}:"
                " confirmed versions do not go back"
            )
        self._running[group_id] = version

    def add(self, entry: Entry[Payload]) -> None:
        """A running group is complete."""
        started = self._running.get(entry.group_id)
        if started is None:
            raise ValueError(f"group {entry.group_id} does not run: it is complete, abandoned or never started")
        if entry.oldest_version < started:
            raise ValueError(
                f"group {entry.group_id} has a token of version {entry.oldest_version}, but every worker had"
                f" confirmed version {started} when it started; a worker confirmed weights it did not use"
            )
        del self._running[entry.group_id]
        self._ready[entry.group_id] = entry

    def abandoned(self, group_id: int) -> None:
        """A group is lost, or will not be trained on: forget it."""
        if self._running.pop(group_id, None) is None and self._ready.pop(group_id, None) is None:
            raise ValueError(f"group {group_id} cannot be abandoned: it neither runs nor waits for its training")

    def take(self, version: int) -> list[Entry[Payload]] | None:
        """The batch that takes the learner from `version` to the next, or None while it is not ready.

        The oldest complete groups, in the order of their ids. Not ready under `wait` where a running
        group would have to be among them for all deadlines to be kept. Stale groups are never in it.
        """
        if len(self._ready) < self._groups_per_step:
            return None  # asked at every group that ends: nothing to sort yet
        fresh = self._fresh(version)
        batch = fresh[: self._groups_per_step]
        if len(batch) < self._groups_per_step or (self._waits and self._missed(fresh, version)):
            return None
        for entry in batch:
            self._taken[entry.group_id] = self._ready.pop(entry.group_id)
        return sorted(batch, key=_by_id)

    def awaited(self, version: int) -> frozenset[int]:
        """The running groups that `take` holds a full batch back for; none where it lacks groups or is ready."""
        fresh = self._fresh(version)
        if not self._waits or len(fresh) < self._groups_per_step or not (missed := self._missed(fresh, version)):
            return frozenset()
        return frozenset(g for g, start in self._running.items() if start + self._max_policy_lag <= missed[-1])

    def sweep(self, version: int) -> list[Entry[Payload]]:
        """Give back, for good, the groups that are too old to be trained at `version`; by group id.

        There are none under the gate and `wait`, unless the lag was made smaller for a resumed run.
        """
        stale = [entry for entry in self._ready.values() if self._deadline(entry) < version]
        for entry in stale:
            del self._ready[entry.group_id]
        return sorted(stale, key=_by_id)

    def give_up(self, version: int) -> list[int]:
        """Forget, for good, the running groups that began too long ago to be trained at `version`; their ids.

        There are none under the gate and `wait`.
        """
        overdue = [group_id for group_id, start in self._running.items() if start + self._max_policy_lag < version]
        for group_id in overdue:
            del self._running[group_id]
        return sorted(overdue)

    def release(self, group_ids: Iterable[int]) -> None:
        """The groups were trained on: forget them and their payloads."""
        wanted = list(group_ids)
        if unknown := [group_id for group_id in wanted if group_id not in self._taken]:
            raise ValueError(f"groups {unknown} cannot be released: they were not taken for training")
        for group_id in wanted:
            del self._taken[group_id]

    def _fresh(self, version: int) -> list[Entry[Payload]]:
        """Complete groups that may be trained at `version`, the oldest first."""
        return sorted((e for e in self._ready.values() if self._deadline(e) >= version), key=_by_age)

    def _missed(self, fresh: list[Entry[Payload]], version: int) -> list[int]:
        """The deadlines that later batches cannot keep for all running and fresh groups, were the oldest taken now.

        Of the groups due at k or before, the batches of version + 1 to k take at most groups_per_step
        each; the rest must be in this one. At most a full batch is asked for, so that an overdue surplus
        (the lag was made smaller) is swept out and does not block.
        """
        size = self._groups_per_step
        taken = [self._deadline(entry) for entry in fresh[:size]]  # ascending
        running = (start + self._max_policy_lag for start in self._running.values())
        due = sorted((*running, *(self._deadline(entry) for entry in fresh)))
        return [
            k
            for k in range(version, version + self._max_policy_lag + 1)
            if bisect_right(taken, k) < min(size, bisect_right(due, k) - (k - version) * size)
        ]

    def _deadline(self, entry: Entry[Payload]) -> int:
        return entry.oldest_version + self._max_policy_lag


def _by_id(entry: Entry[Payload]) -> int:
    return entry.group_id


def _by_age(entry: Entry[Payload]) -> tuple[int, int]:
    return entry.oldest_version, entry.group_id
