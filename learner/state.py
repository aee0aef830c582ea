"""Reading state back strictly: what a checkpoint holds must be what the class wrote."""

from __future__ import annotations

from collections.abc import Mapping


def require_keys(state: Mapping[str, object], expected: frozenset[str], owner: str) -> None:
    """Raise ValueError unless `state` has exactly the expected keys."""
    if state.keys() != expected:
        raise ValueError(
            f"{owner}: got a state with the keys {sorted(state)}, expected {sorted(expected)};"
            " resume with the release that wrote the checkpoint"
        )


def count(value: object, field: str) -> int:
    """The value where it is an integer of 0 or more; raises ValueError where it is not."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{field}: got {value!r}, expected an integer of 0 or more")
    return value
