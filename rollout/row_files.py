"""The rows of a data file or folder as they are written, whatever they are kept in.

A file is told by how it begins: `PAR1` is parquet, `[` a list in JSON, all else is one JSON object a line. A folder
holds shards of one set: what Hugging Face's `save_to_disk` wrote, or parquet files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.row_tables import SAVED_SETS, arrow_rows, parquet_rows, saved_shards
from rollout.rows import RowError, UnreadableFile, shortened

SHARDS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Written:
    """A row before anything is known of its form."""

    file: Path
    number: int  # in its file, from 1; of lines, empty ones included
    content: Mapping[str, object] | RowError


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file or folder of rows."""

    kept_as: str  # for people
    rows: Iterator[Written]  # read as they are asked for, but for a list in JSON


def open_rows(path: Path) -> RowFile:
    """The rows at `path`. Raises UnreadableFile, from the iterator too."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise UnreadableFile(path, "no such file")
    with path.open("rb") as file:
        begin = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"PAR1"):
        return RowFile("parquet", _numbered(path, parquet_rows(path)))
    if begin.startswith(b"["):
        return RowFile("a list in JSON", _numbered(path, _listed(path)))
    return RowFile("JSON lines", _lines(path))


def _of_folder(folder: Path) -> RowFile:
    if any((folder / name).is_file() for name in SAVED_SETS):
        shards = saved_shards(folder)
        return RowFile(
            f"a Hugging Face dataset on disk, {_counted(shards)}",
            (row for shard in shards for row in _numbered(shard, arrow_rows(shard))),
        )
    found = [path for path in folder.glob("*.parquet") if path.is_file()]
    if not found:
        what = "the folder holds neither parquet files nor what Hugging Face's save_to_disk writes: name a file in it"
        raise UnreadableFile(folder, what)
    kinds = {re.sub(r"\d+", "#", path.name) for path in found}
    shards = sorted(found, key=_by_number)
    if len(kinds) > 1:
        names = ", ".join(path.name for path in shards[:SHARDS_SHOWN]) + (", …" if len(shards) > SHARDS_SHOWN else "")
        raise UnreadableFile(
            folder,
            f"the folder holds files of more than one set ({names}): name one of them, or give the shards of each "
            "set a folder of their own",
        )
    return RowFile(
        f"parquet, {_counted(shards)}", (row for shard in shards for row in _numbered(shard, parquet_rows(shard)))
    )


def _counted(shards: list[Path]) -> str:
    return f"{len(shards)} file{'' if len(shards) == 1 else 's'}"


def _by_number(path: Path) -> list[tuple[int, str]]:
    """So that shard 10 comes after shard 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _numbered(file: Path, rows: Iterator[Mapping[str, object] | RowError]) -> Iterator[Written]:
    for number, content in enumerate(rows, start=1):
        yield Written(file, number, content)


def _lines(path: Path) -> Iterator[Written]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Written(path, number, _object_of(line))


def _object_of(line: bytes) -> Mapping[str, object] | RowError:
    try:
        return _checked(_parsed(line.strip()), "one JSON object a line")
    except ValueError as error:
        return RowError([str(error)])


def _listed(path: Path) -> Iterator[Mapping[str, object] | RowError]:
    try:
        rows = _parsed(path.read_bytes())
    except ValueError as error:
        raise UnreadableFile(path, str(error)) from None
    assert isinstance(rows, list)
    for row in rows:
        try:
            yield _checked(row, "a list of JSON objects")
        except ValueError as error:
            yield RowError([str(error)])


def _parsed(text: bytes) -> object:
    """JSON in UTF-8. Raises ValueError for anything else."""
    try:
        written: object = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeError as error:
        raise _not_unicode(error) from None
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None
    return written


def _checked(written: object, expected: str) -> Mapping[str, object]:
    if not isinstance(written, dict):
        raise ValueError(f"got {shortened(written)}, expected {expected}")
    try:
        json.dumps(written, ensure_ascii=False).encode()  # raises on half a surrogate pair
    except UnicodeError as error:
        raise _not_unicode(error) from None
    return written


def _not_unicode(error: UnicodeError) -> ValueError:
    return ValueError(f"not valid Unicode ({error}): write the file as UTF-8")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
