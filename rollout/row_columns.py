"""Columns that bear other names than ours (`data.columns`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from configs.choices import Column
from rollout.rows import RowError

# Ours that stand deeper in a row.
_PLACES = {Column.LABEL: ("reference", "label"), Column.COUNTS: ("reference", "counts")}


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

    def unseen(self) -> list[str]:
        """What the recipe names and no row had, a sentence each."""
        return [
            f"data.columns takes `{ours}` from `{theirs}`, which no row has: mend the name, or leave it out"
            for ours, theirs in self._unseen.items()
        ]


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
