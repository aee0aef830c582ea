"""Pictures small enough to be part of a page, each once."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

from rollout.pictures import load_image

SIDE = 160  # pixels, the longer side at most
PICTURES_AT_MOST = 4000  # of a page: 4 to 8 kB each where they are photographs
_QUALITY = 75


class Thumbnails:
    """Data URIs by number; a picture that cannot be read, or is one too many, has none."""

    def __init__(self, megapixels_at_most: float) -> None:
        self.uris: list[str] = []
        self.left_out = 0
        self._pixels = int(megapixels_at_most * 1e6)
        self._known: dict[str, int | None] = {}
        self._numbers: dict[str, int] = {}

    def number(self, path: str) -> int | None:
        """The place of a picture among `uris`; pictures that look the same share it."""
        if path not in self._known:
            self._known[path] = self._made(path)
        return self._known[path]

    def _made(self, path: str) -> int | None:
        uri = _uri(path, self._pixels)
        if uri is None or (uri not in self._numbers and len(self.uris) == PICTURES_AT_MOST):
            self.left_out += 1
            return None
        if uri not in self._numbers:
            self._numbers[uri] = len(self.uris)
            self.uris.append(uri)
        return self._numbers[uri]


@lru_cache(maxsize=2 * PICTURES_AT_MOST)  # a page that follows a run is made again and again
def _uri(path: str, pixels: int) -> str | None:
    try:
        picture = load_image(path, pixels)
    except (OSError, ValueError):
        return None
    picture.thumbnail((SIDE, SIDE))
    page = io.BytesIO()
    picture.save(page, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(page.getvalue()).decode()}"
