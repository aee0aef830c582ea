"""Whether a picture can be used, told by its path and its header: no pixel is decoded."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path

from PIL import Image

# Pillow reads many more, some by starting other programs, most by code that few have looked at.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


class PictureCheck:
    """Checks the pictures that a data file in `folder` names, each once. Paths are text: there are many."""

    def __init__(self, folder: Path, root: Path, megapixels_at_most: float) -> None:
        """Pictures must lie under `root` and have at most `megapixels_at_most` million pixels."""
        self._folder = os.path.abspath(folder)
        self._root = os.path.abspath(root)
        self._real_root = os.path.realpath(root)
        self._megapixels_at_most = megapixels_at_most
        self._faults: dict[str | bytes, str | None] = {}  # by path as written, or by hash of the bytes

    def path(self, written: str) -> str:
        """The absolute path of the picture that the file names; `..` is resolved as text."""
        return os.path.normpath(os.path.join(self._folder, written))

    def fault(self, written: str | bytes) -> str | None:
        """What is wrong with the picture, named or held by a row; None if nothing is."""
        key = hashlib.sha256(written).digest() if isinstance(written, bytes) else written
        if key not in self._faults:
            self._faults[key] = self._embedded(written) if isinstance(written, bytes) else self._named(written)
        return self._faults[key]

    def _named(self, written: str) -> str | None:
        fault = self._path_fault(written) or self._file_fault(self.path(written))
        return f"image {written!r} {fault}" if fault else None

    def _embedded(self, encoded: bytes) -> str | None:
        fault = self._content_fault(io.BytesIO(encoded))
        return f"an image of {len(encoded)} bytes in the row {fault}" if fault else None

    def _path_fault(self, written: str) -> str | None:
        if not written or "\0" in written:
            return "is not a path"
        if os.path.isabs(written):
            return "is an absolute path, expected one relative to the data file"
        if not self.path(written).startswith(os.path.join(self._root, "")):
            return f"leads out of the data folder {self._root}: move the picture into it"
        return None

    def _file_fault(self, path: str) -> str | None:
        real = os.path.realpath(path)
        if not real.startswith(os.path.join(self._real_root, "")):
            return f"is or is under a link that leads out of the data folder, to {real}: move the picture into it"
        if not os.path.isfile(path):  # nothing else must be opened: reading a pipe would hang
            return f"is missing: there is no file {path}"
        return self._content_fault(path)

    def _content_fault(self, content: str | io.BytesIO) -> str | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of size, which is limited here, and of broken EXIF data
                with Image.open(content, formats=FORMATS) as picture:
                    width, height = picture.size
        except Image.DecompressionBombError:
            return f"has too many pixels to be opened, expected at most {self._megapixels_at_most:g} million"
        except (OSError, ValueError, EOFError, OverflowError) as error:
            return f"cannot be read ({error}), expected one of {', '.join(FORMATS)}"
        if width * height > self._megapixels_at_most * 1e6:
            return (
                f"has {width} x {height} pixels, expected at most {self._megapixels_at_most:g} million: "
                "scale it down or raise data.image_megapixels_at_most"
            )
        return None
