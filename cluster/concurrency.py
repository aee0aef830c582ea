"""How many groups a rollout worker has at once, found from what its engine says (`rl.groups_per_worker: adaptive`).

Where too many are in flight, requests queue, and start under older weights than they could; or the room for keys and
values runs out, and responses are thrown out and computed again. Where too few are, the engine idles: a group holds its
place until its longest response is done, so how many groups fill an engine follows from how its lengths are spread.

The idea is that of congestion control, as CONCUR has it for agents that share a KV cache (arXiv 2601.22705). An engine,
unlike a network, says how much room it has, so the limit goes there at once. Only the end of the KV cache says no more
than "too many": it is answered by a share, and from then on the limit rises by one in the time that a group takes, as
in TCP (additive increase, multiplicative decrease). What counts as a queue is CoDel's (Nichols and Jacobson, 2012): the
shortest there was since the last look, since a burst that is soon served does no harm.
"""

from __future__ import annotations

from math import ceil

from rollout.occupancy import Occupancy

_KV_USE = 0.9  # share of the KV cache that new groups may fill: those that run still grow
_KEPT = 0.85  # of the groups, where the KV cache has run out


class AdaptiveLimit:
    """The limit of one worker; at first as many groups as fill its engine's batch."""

    def __init__(self, samples_per_group: int, sequences_at_once: int) -> None:
        self._samples = samples_per_group
        self._sequences = sequences_at_once
        self._short_of_kv = False  # whether keys and values have run out before
        self._finished = 0  # requests, since the limit was last changed after that
        self.groups = ceil(sequences_at_once / samples_per_group)

    def saw(self, found: Occupancy, groups: int) -> None:
        """The worker has `groups` now, and this is what its engine did since the last look."""
        self._finished += found.finished
        queued = found.waiting // self._samples  # less than a group refills the batch while another is on its way
        if found.preempted:
            if groups <= self.groups:  # otherwise it was lowered already, and the worker is not down there yet
                self.groups = max(1, min(int(_KEPT * groups), groups - queued))
            self._short_of_kv, self._finished = True, 0
        elif queued:
            self.groups = max(1, min(self.groups, groups - queued))
        elif not found.waiting and groups >= self.groups:  # it is the limit that keeps groups away
            self._raise_by(ceil(self._room(found) / self._samples))

    def _raise_by(self, groups: int) -> None:
        if not self._short_of_kv:
            self.groups += groups
        elif groups and self._finished >= self.groups * self._samples:  # once in the time that a group takes
            self.groups += 1
            self._finished = 0

    def _room(self, found: Occupancy) -> float:
        """Sequences for which there are places and, if they take as much as those that run, keys and values."""
        places = self._sequences - found.unfinished
        if found.kv_use > 0:
            return max(0.0, min(places, found.unfinished * (_KV_USE / found.kv_use - 1)))
        return max(0, places)
