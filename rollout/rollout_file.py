r"""The file under `rollouts/`: a header line, then encoded groups, each behind a frame.

    file    = header record*
    header  = "CALIBER ROLLOUTS 1\n"
    record  = frame payload
    frame   = length u32, crc32 of the payload u32, crc32 of the eight bytes before u32; little-endian
    payload = `rollout.codec.encode_group`

A process that dies while it writes leaves a torn tail: the last record is shorter than its frame
says, or the frame itself is cut. A torn tail is expected, and cut off when the file is opened for
more. Anything else that does not fit (a checksum, a frame that is whole but wrong) is corruption,
which is never repaired here: every reader raises CodecError with the offset.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from rollout.codec import GROUP_BYTES, CodecError, decode_group, encode_group
from rollout.trajectory import Group
from rollout.whole_appends import WholeAppends

_log = logging.getLogger(__name__)

HEADER = b"CALIBER ROLLOUTS 1\n"
_FRAME = struct.Struct("<III")
_FRAME_CHECKED = 8  # bytes of the frame that its own checksum covers


class TornTailError(CodecError):
    """The last record is cut off. `offset` is where the whole records end, bytes."""

    def __init__(self, path: Path, offset: int, missing: int) -> None:
        super().__init__(
            f"{path}: torn tail: the record at byte {offset} lacks {missing} bytes; those before are whole"
            " (read with strict=False, or open it for writing to cut the tail off)"
        )
        self.offset = offset


class RolloutWriter:
    """Appends groups to a rollout file; one writer for a file at a time.

    After `append` a read, or the death of this process, finds the group; after `sync` the death of the
    machine does too. Where the disk does not take a group, OSError is raised and the file is as it was.
    Opening a file with a torn tail cuts the tail off with a warning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._appends = WholeAppends(path)
        self._file = self._appends.file
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def append(self, group: Group) -> bytes:
        """Add one group; returns it encoded. Raises CodecError, with nothing written, for one that is not valid."""
        payload = encode_group(group)
        self.append_encoded(payload)
        return payload

    def append_encoded(self, payload: bytes) -> None:
        """Add what `encode_group` made of a group."""
        checked = struct.pack("<II", len(payload), zlib.crc32(payload))
        self._appends.append(checked + struct.pack("<I", zlib.crc32(checked)) + payload)

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. May be called again."""
        self._appends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """Leave the file with a header and whole records only."""
        self._file.seek(0)
        try:
            for _ in _frames(self._file, self._path):
                pass
        except TornTailError as torn:
            if torn.offset or _size(self._file):
                _log.warning("%s; cutting %d bytes off", torn, _size(self._file) - torn.offset)
            self._file.truncate(torn.offset)
            if not torn.offset:
                self._appends.append(HEADER)


def read_rollouts(path: Path, *, strict: bool = True) -> Iterator[Group]:
    """The groups of a rollout file in the order they were written.

    A torn tail raises TornTailError after the last whole group; with strict=False it is logged and
    the iteration ends there, which suits a file that is still being written. Corruption always raises
    CodecError with the offset of the record.
    """
    with path.open("rb") as file:
        try:
            for offset, length, checksum in _frames(file, path):
                yield _group(file.read(length), checksum, f"{path}: record at byte {offset}")
        except TornTailError as torn:
            if strict:
                raise
            _log.warning("%s", torn)


def _group(payload: bytes, checksum: int, where: str) -> Group:
    if zlib.crc32(payload) != checksum:
        raise CodecError(f"{where} is corrupt: its checksum is {zlib.crc32(payload):08x}, not {checksum:08x}")
    try:
        return decode_group(payload)
    except CodecError as error:
        raise CodecError(f"{where}: {error}") from error


def _frames(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """Offset, payload length and payload checksum of each whole record, the file at its payload.

    Raises TornTailError at a record that the file ends in.
    """
    size = _size(file)
    found = file.read(len(HEADER))
    if not HEADER.startswith(found):
        raise CodecError(f"{path}: got {found!r}, expected a rollout file, which begins with {HEADER!r}")
    if found != HEADER:
        raise TornTailError(path, 0, len(HEADER) - len(found))
    offset = len(HEADER)
    while offset < size:
        file.seek(offset)
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise TornTailError(path, offset, _FRAME.size - len(frame))
        length, checksum, own = _FRAME.unpack(frame)
        if own != zlib.crc32(frame[:_FRAME_CHECKED]) or length > GROUP_BYTES:
            raise CodecError(f"{path}: record at byte {offset} is corrupt: its frame fails its checksum")
        end = offset + _FRAME.size + length
        if end > size:
            raise TornTailError(path, offset, end - size)
        yield offset, length, checksum
        offset = end


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
