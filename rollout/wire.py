"""Readers of msgpack values: each accepts one type within limits and names the field it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Scalar = TypeVar("Scalar", bound=np.generic)

# Containers longer than any limit of ours are refused while unpacking, before their elements are
# made: a four-byte header can claim four billion of them.
_ELEMENTS_AT_MOST = 10_000
_INT64_MAX = 2**63 - 1


class CodecError(ValueError):
    """Bytes, or an object to be encoded, that are not what the format says."""


def refuse(field: str, got: object, expected: str) -> NoReturn:
    """Raise CodecError for a field; long values are cut."""
    shown = got if isinstance(got, str) else repr(got)
    raise CodecError(f"{field}: got {shown[:80]}, expected {expected}")


def unpack(data: bytes, bytes_at_most: int) -> object:
    """One msgpack value, and nothing after it. Extension types and repeated keys are refused."""
    if len(data) > bytes_at_most:
        refuse("message", f"{len(data):,} bytes", f"at most {bytes_at_most:,}")
    try:
        return msgpack.unpackb(
            data,
            object_pairs_hook=_without_repeats,
            max_array_len=_ELEMENTS_AT_MOST,
            max_map_len=_ELEMENTS_AT_MOST,
            max_ext_len=0,
        )
    except CodecError:
        raise
    except ValueError as error:  # every refusal of msgpack is one, UnicodeDecodeError among them
        raise CodecError(f"message: got bytes that are not msgpack: {error!r:.200}") from error


def _without_repeats(pairs: list[tuple[object, object]]) -> dict[object, object]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        refuse("message", f"a map that repeats a key among {sorted(map(str, keys))}", "each key once")
    return keys


def mapping(value: object, field: str, keys: Iterable[str]) -> dict[str, Any]:
    """A map that has exactly these keys."""
    entries = _of_type(value, field, dict)
    expected = set(keys)
    if entries.keys() == expected:
        return entries
    if missing := sorted(expected - entries.keys()):
        raise CodecError(f"{field}: the keys {missing} are missing")
    unknown = sorted(map(repr, entries.keys() - expected))
    raise CodecError(f"{field}: the keys [{', '.join(unknown)[:80]}] are unknown")


def numbers(value: object, field: str, at_most: int, name_characters: int) -> dict[str, float]:
    """A map of finite numbers by name."""
    entries = _of_type(value, field, dict)
    if len(entries) > at_most:
        refuse(field, f"{len(entries):,} entries", f"at most {at_most:,}")
    return {
        text(name, f"{field} (name)", name_characters): real(number, f"{field}.{name!s:.40}")
        for name, number in entries.items()
    }


def sequence(value: object, field: str, at_most: int) -> list[Any]:
    """A list."""
    items = _of_type(value, field, list)
    if len(items) > at_most:
        refuse(field, f"{len(items):,} items", f"at most {at_most:,}")
    return items


def text(value: object, field: str, characters: int) -> str:
    """A string."""
    found = _of_type(value, field, str)
    if len(found) > characters:
        refuse(field, f"{len(found):,} characters", f"at most {characters:,}")
    return found


def integer(value: object, field: str, least: int = 0, most: int = _INT64_MAX) -> int:
    """An integer in [least, most]; True and False are none."""
    found = _of_type(value, field, int)
    if not least <= found <= most:
        refuse(field, found, f"an integer in [{least}, {most}]")
    return found


def real(value: object, field: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number in [least, most]; an integer counts as one, as in Python's own typing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(field, value, "a number")
    if not math.isfinite(value) or not least <= value <= most:
        refuse(field, value, f"a finite number in [{least}, {most}]")
    return float(value)


def optional(value: object, read: Callable[[object], T]) -> T | None:
    """None, or what `read` makes of the value."""
    return None if value is None else read(value)


def packed_array(values: NDArray[Any]) -> dict[str, object]:
    """An array as dtype, length and little-endian bytes."""
    little = values.dtype.newbyteorder("<")
    return {"dtype": little.str, "length": len(values), "data": values.astype(little, copy=False).tobytes()}


def array(value: object, field: str, dtype: type[Scalar], lengths: Sequence[int]) -> NDArray[Scalar]:
    """A read-only array of one dimension whose length is in [lengths[0], lengths[1]]."""
    entries = mapping(value, field, ("dtype", "length", "data"))
    little = np.dtype(dtype).newbyteorder("<")
    if entries["dtype"] != little.str:
        refuse(f"{field}.dtype", entries["dtype"], repr(little.str))
    length = integer(entries["length"], f"{field}.length", *lengths)
    data = _of_type(entries["data"], f"{field}.data", bytes)
    if len(data) != length * little.itemsize:
        wanted = f"{length * little.itemsize:,} for {length:,} elements"
        refuse(f"{field}.data", f"{len(data):,} bytes", wanted)
    return np.frombuffer(data, dtype=little).astype(dtype, copy=False)


def _of_type(value: object, field: str, kind: type[T]) -> T:
    if type(value) is not kind:
        refuse(field, f"{type(value).__name__} {value!r}", f"a {kind.__name__}")
    return value
