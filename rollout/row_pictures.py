"""Pictures as rows name or hold them: paths and encoded bytes, and nothing that would have to be fetched.

A path is text, or `file:` and a path. An encoded picture is a `data:` URI in base64, or bytes in a table. A table may
also have them in an object: {"bytes", "path"} as Hugging Face and verl write it, {"image"} as Qwen's tools do.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator

from rollout.rows import shortened

Picture = str | bytes  # a path as written, or the bytes of a picture's file

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXPECTED = "expected a path, a data URI, or an object with bytes or a path"


def picture(written: object) -> Picture:
    """One picture. Raises ValueError for what is none, and for what is elsewhere."""
    if isinstance(written, bytes):
        return written
    if isinstance(written, str):
        return _of_text(written)
    if not isinstance(written, Mapping):
        raise ValueError(f"{_EXPECTED}, got {shortened(written)}")
    for key in ("bytes", "path", "image"):  # where there are bytes, Hugging Face's path is but the name they had
        if written.get(key) is not None:
            return picture(written[key])
    raise ValueError(f"{_EXPECTED}, got an object of {', '.join(map(repr, written)) or 'nothing'}")


def _pictures(written: object) -> tuple[Picture, ...]:
    """One picture, a list of them, or none."""
    if written is None:
        return ()
    return tuple(map(picture, written)) if isinstance(written, list) else (picture(written),)


Pictures = Annotated[tuple[Picture, ...], BeforeValidator(_pictures)]


def _of_text(text: str) -> Picture:
    if text[:5].lower() == "data:":
        return _of_data_uri(text)
    if text[:5].lower() == "file:":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{shortened(text)} is on another machine, and nothing is fetched: give a path")
        return unquote(parts.path)
    if _ADDRESS.match(text):
        raise ValueError(
            f"{shortened(text)} is an address, and nothing is fetched: download the picture into the data folder, "
            "and give its path relative to the data file"
        )
    return text


def _of_data_uri(text: str) -> bytes:
    head, comma, encoded = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError(f"{shortened(text)} is no data URI in base64: data:image/png;base64,…")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{shortened(text)} is no base64 ({error})") from None
