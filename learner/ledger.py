"""Every admitted prompt group is trained on, or dropped with a reason, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from enum import StrEnum
from typing import NamedTuple, TypedDict, cast

from learner.state import count, require_keys


class DropReason(StrEnum):
    """Why a group was not trained on."""

    STALE = "stale"  # complete, and its oldest token is older than the policy lag allows
    TOO_SLOW = "too_slow"  # it would be too old before it is complete (rl.stale_groups: drop)
    UNANSWERABLE = "unanswerable"  # no engine can answer its prompt: a picture cannot be read, or it is too long
    GENERATION_FAILED = "generation_failed"  # no engine finished it, reissues included
    SCORING_FAILED = "scoring_failed"  # no reward worker finished it, or too few of its responses have a score
    LOST = "lost"  # sampled, and lost with its node before it was scored


class Drop(NamedTuple):
    """One dropped group."""

    prompt_id: str
    reason: DropReason


class LedgerState(TypedDict):
    """Trained groups are the admitted ones that neither list holds."""

    admitted: int  # groups ever; their ids are 0 to admitted - 1
    last_step: int  # the newest step that trained a group; -1: none
    outstanding: list[list[int | str]]  # [group id, prompt id]
    dropped: list[list[int | str]]  # [group id, prompt id, reason]


class Ledger:
    """The fate of every group; ids are consecutive from 0. A mistake in the accounts raises ValueError."""

    def __init__(self) -> None:
        self._admitted = 0
        self._last_step = -1
        self._outstanding: dict[int, str] = {}
        self._dropped: dict[int, Drop] = {}
        self._drop_counts: Counter[DropReason] = Counter()  # asked for at every step, of drops that only grow

    @property
    def next_id(self) -> int:
        """The id that the next admitted group must have."""
        return self._admitted

    @property
    def trained_count(self) -> int:
        """Groups trained on since the run began."""
        return self._admitted - len(self._outstanding) - len(self._dropped)

    def admit(self, group_id: int, prompt_id: str) -> None:
        """Open the account of a group."""
        if group_id != self._admitted:
            raise ValueError(f"got group {group_id} to admit, expected {self._admitted}: ids are consecutive")
        self._outstanding[group_id] = prompt_id
        self._admitted += 1

    def trained(self, group_id: int, step: int) -> None:
        """Close a group's account: `step` trained on it. Steps do not go back."""
        if step < max(self._last_step, 0):
            raise ValueError(f"got step {step} for group {group_id}, expected {max(self._last_step, 0)} or later")
        self._close(group_id, f"trained in step {step}")
        self._last_step = step

    def dropped(self, group_id: int, reason: DropReason) -> None:
        """Close a group's account: it will not be trained on."""
        prompt_id = self._close(group_id, f"dropped ({reason})")
        self._dropped[group_id] = Drop(prompt_id, DropReason(reason))
        self._drop_counts[DropReason(reason)] += 1

    def outstanding(self) -> Mapping[int, str]:
        """Prompt ids of the groups that are neither trained nor dropped, by group id, ascending."""
        return dict(self._outstanding)

    def drops(self) -> Mapping[int, Drop]:
        """The dropped groups by id, in the order they were dropped."""
        return dict(self._dropped)

    def drop_counts(self) -> Counter[DropReason]:
        """Dropped groups by reason."""
        return self._drop_counts.copy()

    def state_dict(self) -> LedgerState:
        """What `load_state_dict` reads; as JSON or msgpack would give it back."""
        return LedgerState(
            admitted=self._admitted,
            last_step=self._last_step,
            outstanding=[[group, prompt] for group, prompt in self._outstanding.items()],
            dropped=[[group, drop.prompt_id, str(drop.reason)] for group, drop in self._dropped.items()],
        )

    def load_state_dict(self, state: LedgerState) -> None:
        """Go on where the state was taken.

        Raises ValueError, with nothing changed, for a state that is not a ledger's or does not add up.
        """
        require_keys(cast("dict[str, object]", state), LedgerState.__required_keys__, "ledger")
        admitted = count(state["admitted"], "ledger: admitted")
        last_step = -1 if state["last_step"] == -1 else count(state["last_step"], "ledger: last_step")
        outstanding = {group: prompt for group, (prompt,) in _rows(state["outstanding"], "outstanding", 1)}
        dropped = {
            group: Drop(prompt, DropReason(reason)) for group, (prompt, reason) in _rows(state["dropped"], "dropped", 2)
        }
        _check_sum(admitted, last_step, outstanding.keys(), dropped.keys())
        self._admitted, self._last_step = admitted, last_step
        self._outstanding, self._dropped = outstanding, dropped
        self._drop_counts = Counter(drop.reason for drop in dropped.values())

    def _close(self, group_id: int, fate: str) -> str:
        if group_id in self._outstanding:
            return self._outstanding.pop(group_id)
        if group_id in self._dropped:
            before = f"was dropped before ({self._dropped[group_id].reason})"
        elif 0 <= group_id < self._admitted:
            before = "was trained on before"
        else:
            before = f"was never admitted ({self._admitted} groups were)"
        raise ValueError(f"group {group_id} cannot be {fate}: it {before}")


def _rows(rows: object, name: str, texts: int) -> Iterator[tuple[int, list[str]]]:
    """Group id and texts of each row; raises ValueError for a row of another form or an id seen before."""
    if type(rows) is not list:
        raise ValueError(f"ledger: {name}: got {type(rows).__name__}, expected a list")
    seen: set[int] = set()
    for row in rows:
        if type(row) is not list or len(row) != 1 + texts or any(type(item) is not str for item in row[1:]):
            raise ValueError(f"ledger: {name}: got {row!r}, expected a group id and {texts} texts")
        group_id = count(row[0], f"ledger: {name}: group id")
        if group_id in seen:
            raise ValueError(f"ledger: {name}: group {group_id} is there twice")
        seen.add(group_id)
        yield group_id, row[1:]


def _check_sum(admitted: int, last_step: int, outstanding: Set[int], dropped: Set[int]) -> None:
    if both := sorted(outstanding & dropped):
        raise ValueError(f"ledger: groups {both} are both outstanding and dropped")
    if strange := sorted(group for group in outstanding | dropped if group >= admitted):
        raise ValueError(f"ledger: groups {strange} were never admitted ({admitted} groups were)")
    trained = admitted - len(outstanding) - len(dropped)
    if (trained > 0) != (last_step >= 0):
        raise ValueError(f"ledger: {trained} trained groups do not go with a last step of {last_step}")
