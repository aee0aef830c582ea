"""Data files into prompts, or into all that is wrong with them, before any model is loaded.

`rollout.row_shapes` knows the two kinds of rows and their form, `rollout.row_check` what they must mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rewards.correctness import majority
from rollout.picture_check import PictureCheck
from rollout.prompts import Prompt
from rollout.row_check import RowCheck, spelling
from rollout.row_shapes import RowError, RowKind, kind_of, read_row, shortened
from rollout.rows import Row


class DataError(ValueError):
    """Everything that is wrong with the data, a line each: FILE:ROW: what."""

    def __init__(self, problems: Sequence[str], shown: int) -> None:
        """`problems` holds them all; the message names the first `shown` and counts the rest."""
        self.problems = tuple(problems)
        more = len(self.problems) - shown
        super().__init__("\n".join([*self.problems[:shown], *([f"… and {more} more"] if more > 0 else [])]))


def read_prompts(
    path: Path,
    root: Path,
    *,
    errors_shown: int = 20,
    megapixels_at_most: float = 64.0,
    need_response: bool,
    require_reference: bool,
) -> list[Prompt]:
    """The prompts of a JSONL file, in its order.

    The file holds one kind of row, told by the first row that shows it. Pictures' paths are relative to
    the file and must stay under `root`; only the header of a picture is read. A row without an id gets
    one from the file's name and its row number, a row without a task the file's name. Labels and counts
    get the candidates' spelling and order.

    Raises DataError with the faults of all rows, which are counted from 1, empty lines included.
    """
    pictures = PictureCheck(path.parent, root, megapixels_at_most)
    check = RowCheck(pictures, need_response=need_response, require_reference=require_reference)
    rows: list[Row] = []
    problems: list[str] = []
    for number, row in _rows(path):
        faults = row.faults if isinstance(row, RowError) else check.faults(number, row)
        problems += [f"{path}:{number}: {fault}" for fault in faults]
        if isinstance(row, Row) and not problems:
            rows.append(row)
    if not (rows or problems):
        problems.append(f"{path}: the file is empty, expected one JSON object a line")
    if problems:
        raise DataError(problems, errors_shown)
    return [_prompt(row, pictures) for row in rows]


def _rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """Row numbers, each with its row or with what is wrong with its form."""
    if not path.is_file():
        raise DataError([f"{path}: no such file"], shown=1)
    kind: RowKind | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                written = _json_object(line)
                kind = kind or kind_of(written)
                yield number, read_row(written, _agreed(kind, written), path.stem, number)
            except RowError as error:
                yield number, error


def _json_object(line: bytes) -> Mapping[str, object]:
    try:
        written: object = json.loads(line.strip().decode("utf-8-sig"), parse_constant=_refuse_constant)
        json.dumps(written, ensure_ascii=False).encode()  # raises on half a surrogate pair
    except UnicodeError as error:
        raise RowError([f"not valid Unicode ({error}): write the file as UTF-8"]) from None
    except RecursionError:
        raise RowError(["invalid JSON: nested too deeply"]) from None
    except ValueError as error:
        raise RowError([f"invalid JSON: {error}"]) from None
    if not isinstance(written, dict):
        raise RowError([f"got {shortened(written)}, expected one JSON object a line"])
    return written


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _agreed(kind: RowKind | None, written: Mapping[str, object]) -> RowKind:
    if kind is None:
        raise RowError([f"has neither `{RowKind.CHAT}` (chat rows) nor `{RowKind.VECBENCH}` (VECBench's)"])
    if kind.value not in written:
        raise RowError([f"has no `{kind}`, as the rows before it have: a file holds one kind of row"])
    return kind


def _prompt(row: Row, pictures: PictureCheck) -> Prompt:
    """The prompt of a row without faults."""
    votes = {spelling(row, name): count for name, count in (row.counts or {}).items()}
    counts = {candidate: votes.get(candidate, 0) for candidate in row.candidates} if votes else {}
    label = None if row.label is None else spelling(row, row.label)
    return Prompt(
        prompt_id=row.row_id,
        task=row.task,
        messages=row.question,
        images=tuple(pictures.path(image) for image in row.images),
        candidates=row.candidates,
        label=majority(counts) if counts and label is None else label,
        counts=counts,
        response=row.response,
    )
