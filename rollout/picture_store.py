"""Pictures that rows hold themselves, kept as files under the data's root: what reads a picture later reads a path."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

from PIL import Image

from rollout.picture_check import FORMATS

FOLDER = "embedded-pictures"


class PictureStore:
    """Keeps encoded pictures, each once: a file's name is what its bytes hash to."""

    def __init__(self, root: Path) -> None:
        self._folder = Path(os.path.abspath(root)) / FOLDER

    def path(self, encoded: bytes) -> str:
        """The file of a picture whose header was checked, written whole if it is not there.

        Raises ValueError where the folder cannot be written, or is a link out of the root.
        """
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            suffix = str(picture.format).lower()
        file = self._folder / f"{hashlib.sha256(encoded).hexdigest()}.{suffix}"
        if self._folder.is_symlink():  # whoever made the data may have made it
            raise ValueError(f"{self._folder} is a link: remove it, pictures that rows hold are written there")
        if file.is_symlink() or not file.is_file():
            self._write(file, encoded)
        return str(file)

    def _write(self, file: Path, encoded: bytes) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as aside:
                aside.write(encoded)
            os.chmod(aside.name, 0o644)  # a temporary file is its owner's alone
            os.replace(aside.name, file)
        except OSError as error:
            raise ValueError(
                f"{file}: {error.strerror}: pictures that rows hold are written under data.root; let it be "
                "written to, or give the rows paths of pictures"
            ) from error
