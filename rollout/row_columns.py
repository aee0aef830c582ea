"""Columns that bear other names than ours (`data.columns`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set

from configs.choices import QUESTIONS, Column
from rollout.rows import PLACEHOLDER, Row, RowError

# Ours that stand deeper in a row.
_PLACES = {Column.LABEL: ("reference", "label"), Column.COUNTS: ("reference", "counts")}
_RESPONSE = frozenset({Column.RESPONSE, Column.OUTPUT})
_REFERENCE = frozenset({Column.LABEL, Column.COUNTS})  # one of them is enough


class Needs:
    """What a file must hold, under whatever name."""

    def __init__(self, *, response: bool, reference: bool) -> None:
        self._needed = {*QUESTIONS, *(_RESPONSE if response else ()), *(_REFERENCE if reference else ())}
        self._held: set[Column] = set()

    def see(self, row: Row) -> None:
        """Note what a row holds, and what it cannot do without."""
        if any(PLACEHOLDER in message.text for message in row.question):
            self._needed.add(Column.IMAGES)
        if row.counts is not None:
            self._needed.add(Column.CANDIDATES)
        self._held |= _RESPONSE if row.response is not None else set()
        self._held |= {Column.IMAGES} if row.images else set()
        self._held |= {Column.CANDIDATES} if row.candidates else set()
        self._held |= _REFERENCE if row.label is not None or row.counts is not None else set()

    def missing(self) -> Set[Column]:
        """What is needed and no row that was seen holds. The question is in none: its column must be there."""
        return self._needed - self._held


class Columns:
    """Gives a file's rows our names; remembers whether what the recipe names was there."""

    def __init__(self, named: Mapping[Column, str]) -> None:
        """`named` has a file's name for each of ours; with dots, a place deeper in a row."""
        self._named = named
        self._unseen = dict(named)

    def applied(self, written: Mapping[str, object]) -> Mapping[str, object]:
        """The row with our names. Raises RowError where one of ours would stand in something else."""
        row = {key: value for key, value in written.items() if key not in self._named.values()}
        for ours, theirs in self._named.items():
            place = _PLACES.get(ours, (str(ours),))
            value = _at(written, theirs)
            if value is None:
                if _at(written, ".".join(place)) is not None:
                    self._unseen.pop(ours, None)
                continue
            self._unseen.pop(ours, None)
            _put(row, place, value)
        return row

    def __contains__(self, ours: object) -> bool:
        return ours in self._named

    def faults(self, missing: Set[Column]) -> list[str]:
        """What the recipe names, no row had and the file is missing, a sentence each."""
        return [
            f"data.columns takes `{ours}` from `{theirs}`, which no row has: mend the name, or leave it out"
            for ours, theirs in self._unseen.items()
            if ours in missing
        ]

    def unseen(self) -> str:
        """What the recipe names and no row had, as the end of a sentence on the file; empty where there is none."""
        names = [f"`{theirs}` for `{ours}`" for ours, theirs in self._unseen.items()]
        return f", none with {' or '.join(names)}" if names else ""


def _at(written: Mapping[str, object], name: str) -> object:
    """The value of a key, or of keys in keys; None where there is none."""
    if name in written:
        return written[name]
    value: object = written
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _put(row: dict[str, object], place: tuple[str, ...], value: object) -> None:
    *above, last = place
    inside = row
    for key in above:
        inner = copy.copy(inside.get(key)) or {}
        if not isinstance(inner, dict):
            raise RowError([f"`{key}` is no object, and data.columns puts `{last}` into it: name another column"])
        inside[key] = inner
        inside = inner
    inside[last] = value
