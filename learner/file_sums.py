"""Files whose sizes and CRC-32 are taken as they are written, so that whoever reads them can tell that nothing changed.

The sum is of what was handed over, not of what the disk gives back: it costs no second reading, and a disk that wrote
something else is found out too.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

_BLOCK = 2**22  # bytes read at a time


@dataclass(frozen=True, slots=True)
class FileSum:
    """What a file must be."""

    size: int  # bytes
    crc32: int

    def __str__(self) -> str:
        return f"{self.size} bytes with CRC-32 {self.crc32:08x}"


class _SummedFile:
    """Passes what is written on to a file, and remembers its sum, and the error that ended it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = FileSum(0, 0)
        self.failure: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        self.sum = FileSum(self.sum.size + len(data), zlib.crc32(data, self.sum.crc32))
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()


def write_summed(path: Path, write: Callable[[BinaryIO], object]) -> FileSum:
    """Let `write` fill a file, and wait until it is on the disk. Raises OSError where it cannot be."""
    with path.open("wb") as file:
        summed = _SummedFile(file)
        try:
            write(cast("BinaryIO", summed))  # of which writers use nothing else
        except RuntimeError as error:  # torch.save raises its own where the file it writes to raised
            if summed.failure is None:
                raise
            raise summed.failure from error
        file.flush()
        os.fsync(file.fileno())
    return summed.sum


def sum_of(path: Path) -> FileSum:
    """The sum of a file as it is now."""
    size = crc32 = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, crc32 = size + len(block), zlib.crc32(block, crc32)
    return FileSum(size, crc32)


def found_sums(folder: Path, names: Iterable[str]) -> dict[str, FileSum | str]:
    """The sums of files in a folder by name; of one that cannot be read why."""

    def found(name: str) -> FileSum | str:
        try:
            return sum_of(folder / name)
        except OSError as error:
            return error.strerror or str(error)

    return {name: found(name) for name in names}


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where its file system knows how to."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what some of a network answer
            raise
    finally:
        os.close(descriptor)
