"""What changed between two versions of a tensor, bit for bit, in as few bytes as plain integers take.

A value has changed where its bits have: a NaN equals itself, and 0 is not -0. There are three ways to say which
values those are, and every tensor takes the one of the fewest bytes:

- gaps: how many unchanged values stand before each changed one, as integers of 1, 2 or 4 bytes. The largest number
  of the type stands for as many values passed over, and the gap goes on: a few long gaps do not widen the others.
- bitmap: a bit for each value. A gap takes a byte at least: from one changed value in eight on this is smaller.
- all: no positions, every value. For values of s bytes a bitmap saves nothing once 1 - 1/(8 s) of them changed.

Where a share p of the values changed, evenly strewn, a gap takes 1 / (1 - (1 - p)^255) bytes of one byte each
(gaps are geometric), beside the H(p) / p bits that no code goes below: at 0.5% 1.4 bytes beside 1.1, at 3% 1.0
beside 0.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

# Signed, as torch can do little with unsigned ones: only whether bits are equal is asked.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a value
_GAP_TYPES = (np.uint8, np.uint16, np.uint32)


class Where(StrEnum):
    """How the changed values' positions are told."""

    GAPS = "gaps"
    BITMAP = "bitmap"
    ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class TensorDelta:
    """The values of a tensor that changed: K of its N, in the order of their positions in memory."""

    dtype: str  # torch's name, without "torch."
    shape: tuple[int, ...]
    where: Where
    positions: NDArray[np.unsignedinteger]  # gaps: [>= K]; bitmap: [N / 8] uint8; all: [0]
    values: NDArray[np.signedinteger]  # [K] the new values' bits

    @property
    def nbytes(self) -> int:
        """Bytes of positions and values."""
        return int(self.positions.nbytes + self.values.nbytes)


def difference(old: torch.Tensor, new: torch.Tensor) -> TensorDelta | None:
    """What makes `new` of `old`, both on the CPU; None where they are equal bit for bit.

    Where all values are sent, the delta shares memory with `new`. Beside the delta it takes a byte a value, and
    another where gaps are tried. Raises ValueError where type or shape differ.
    """
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        raise ValueError(f"{_kind(old)} became {_kind(new)}: a delta is between tensors of one type and shape")
    before, after = _bits(old), _bits(new)
    changed = before != after
    count = int(np.count_nonzero(changed))
    if count == 0:
        return None
    where, positions = _told(changed, count)
    if positions.nbytes + count * after.itemsize >= after.nbytes:
        where, positions, values = Where.ALL, np.empty(0, np.uint8), after
    else:
        values = after[changed]
    return TensorDelta(_name(new.dtype), tuple(new.shape), where, positions, values)


def apply(delta: TensorDelta, tensor: torch.Tensor) -> None:
    """Make the new version of the old one, in place; the tensor is contiguous and on the CPU.

    Raises ValueError where the delta is of another type or shape, or is not whole.
    """
    if (delta.dtype, delta.shape) != (_name(tensor.dtype), tuple(tensor.shape)):
        raise ValueError(f"a delta of {delta.dtype} {list(delta.shape)} does not fit {_kind(tensor)}")
    assert tensor.is_contiguous(), "written in place"
    held = _bits(tensor)
    if delta.where is Where.ALL:
        held[:] = delta.values
    elif delta.where is Where.BITMAP:
        held[np.unpackbits(delta.positions, count=len(held)).view(np.bool_)] = delta.values
    else:
        held[_positions(delta.positions)] = delta.values


def _told(changed: NDArray[np.bool_], count: int) -> tuple[Where, NDArray[np.unsignedinteger]]:
    """The smaller of gaps and bitmap."""
    bitmap_bytes = -(-len(changed) // 8)
    if count < bitmap_bytes:  # else gaps of a byte each are no smaller, and need not be looked at
        gaps = np.diff(np.flatnonzero(changed), prepend=-1) - 1
        bytes_by_type = {kind: _gap_bytes(gaps, kind) for kind in _GAP_TYPES}
        kind = min(bytes_by_type, key=lambda kind: bytes_by_type[kind])
        if bytes_by_type[kind] < bitmap_bytes:
            return Where.GAPS, _in_units(gaps, kind)
    return Where.BITMAP, np.packbits(changed)


def _gap_bytes(gaps: NDArray[np.int64], kind: type[np.unsignedinteger]) -> int:
    limit = np.iinfo(kind).max
    return int(len(gaps) + (gaps // limit).sum()) * np.dtype(kind).itemsize


def _in_units(gaps: NDArray[np.int64], kind: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Each gap as its multiples of the type's largest number, then the rest, which is smaller."""
    limit = np.iinfo(kind).max
    passed, rest = np.divmod(gaps, limit)
    ends = np.cumsum(passed + 1)
    units = np.full(int(ends[-1]), limit, kind)
    units[ends - 1] = rest
    return units


def _positions(units: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    ends = units != np.iinfo(units.dtype).max
    passed = np.cumsum(units, dtype=np.int64)[ends]
    return passed + np.arange(len(passed))  # the changed values before it stand in no gap


def _bits(tensor: torch.Tensor) -> NDArray[np.signedinteger]:
    """The values' bits in the order of their positions; of a contiguous tensor the memory itself."""
    flat = tensor.detach().contiguous().flatten()
    bits: NDArray[np.signedinteger] = flat.view(_BITS[tensor.element_size()]).numpy()
    return bits


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _kind(tensor: torch.Tensor) -> str:
    return f"{_name(tensor.dtype)} {list(tensor.shape)}"
