"""A file that grows by whole pieces: what the disk takes only a part of leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path


class WholeAppends:
    """Appends to a file, past any buffer of this process. One writer for a file at a time."""

    def __init__(self, path: Path) -> None:
        """The file is made where it is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab+", buffering=0)

    def append(self, piece: bytes) -> None:
        """Add a piece. Raises OSError, with the file as it was, where it cannot be written: the disk is full, say."""
        end, left = os.fstat(self.file.fileno()).st_size, memoryview(piece)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError:
            self.file.truncate(end)
            raise

    def close(self) -> None:
        """Close the file. May be called again."""
        self.file.close()
