"""Data files into prompts, or into all that is wrong with them, before any model is loaded.

`rollout.row_files` opens what rows are kept in, `rollout.row_kinds` tells their format, `rollout.row_shapes` knows the
form of each, `rollout.row_check` what they must mean.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from configs.choices import Column
from rewards.correctness import majority
from rollout.picture_check import PictureCheck
from rollout.picture_store import PictureStore
from rollout.prompts import Prompt
from rollout.row_check import RowCheck, spelling
from rollout.row_columns import Columns, Needs
from rollout.row_files import Written, open_rows
from rollout.row_kinds import RowKind, described, kind_of
from rollout.row_shapes import read_row
from rollout.rows import Row, RowError, UnreadableFile

logger = logging.getLogger(__name__)


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
    columns: Mapping[Column, str] | None = None,
    errors_shown: int = 20,
    megapixels_at_most: float = 64.0,
    need_response: bool,
    require_reference: bool,
) -> list[Prompt]:
    """The prompts of a data file or folder, in its order; its format is detected, and logged in a line.

    It holds one kind of row, told by the first row that shows it. `columns` has its name for each of ours that it
    calls otherwise, and may have one for what it neither has nor needs. Pictures' paths are relative to the file, or
    to the folder, and must stay under `root`; only the header of a picture is read. Pictures that rows hold themselves
    are written to files under `root`. A row without an id gets one from the file's name and its row number, a row
    without a task the file's name. Labels and counts get the candidates' spelling and order.

    Raises DataError with the faults of all rows, which are counted from 1, empty lines included.
    """
    pictures = PictureCheck(path if path.is_dir() else path.parent, root, megapixels_at_most)
    check = RowCheck(pictures, need_response=need_response, require_reference=require_reference)
    needs = Needs(response=need_response, reference=require_reference)
    named, kept = Columns(columns or {}), PictureStore(root)
    reading = _Reading(path, named)
    prompts: list[Prompt] = []
    problems: list[str] = []
    for found in reading.rows():
        faults = found.row.faults if isinstance(found.row, RowError) else check.faults(found.place, found.row)
        problems += [f"{found.file}:{found.number}: {fault}" for fault in faults]
        if isinstance(found.row, Row):
            needs.see(found.row)
        if isinstance(found.row, Row) and not problems:
            prompts.append(_prompt(found.row, pictures, kept))
    problems = reading.problems(needs.missing()) + problems
    if problems:
        raise DataError(problems, errors_shown)
    logger.info("%s: %d rows, %s (%s)%s", path, len(prompts), reading.format, reading.kept_as, named.unseen())
    return prompts


@dataclass(frozen=True, slots=True)
class _Found:
    """A row with its place, or with what is wrong with its form."""

    file: Path
    number: int
    place: str  # for people who know which file or folder it is in
    row: Row | RowError


class _Reading:
    """One pass over a file or folder."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._columns = columns
        self._kind: RowKind | None = None
        self._any = False
        self._unreadable: str | None = None
        self.format = ""
        self.kept_as = ""

    def rows(self) -> Iterator[_Found]:
        """All rows, up to where the file can be read no further."""
        try:
            opened = open_rows(self._path)
            self.kept_as = opened.kept_as
            for position, written in enumerate(opened.rows, start=1):
                self._any = True
                yield self._found(written, position)
        except UnreadableFile as error:
            self._unreadable = str(error)

    def problems(self, missing: Set[Column]) -> list[str]:
        """What is wrong with the file as a whole, once its rows were read and it is known what it is missing."""
        if self._unreadable is not None:
            return [self._unreadable]
        if not self._any:
            return [f"{self._path}: the file is empty, expected rows, such as one JSON object a line"]
        return [] if self._kind is None else [f"{self._path}: {fault}" for fault in self._columns.faults(missing)]

    def _found(self, written: Written, position: int) -> _Found:
        shard = written.file != self._path
        place = f"row {written.number}" + (f" of {written.file.name}" if shard else "")
        return _Found(written.file, written.number, place, self._row(written, position if shard else written.number))

    def _row(self, written: Written, position: int) -> Row | RowError:
        if isinstance(written.content, RowError):
            return written.content
        try:
            content = self._columns.applied(written.content)
            if self._kind is None:
                self._kind = kind_of(content, self._columns)
                self.format = described(self._kind, content)
            if content.get(self._kind) is None:
                raise RowError([f"has no `{self._kind}`, as the rows before it have: a file holds one kind of row"])
            return read_row(content, self._kind, self._path.stem, position)
        except RowError as error:
            return error


def _prompt(row: Row, pictures: PictureCheck, kept: PictureStore) -> Prompt:
    """The prompt of a row without faults."""
    votes = {spelling(row, name): count for name, count in (row.counts or {}).items()}
    counts = {candidate: votes.get(candidate, 0) for candidate in row.candidates} if votes else {}
    label = None if row.label is None else spelling(row, row.label)
    return Prompt(
        prompt_id=row.row_id,
        task=row.task,
        messages=row.question,
        images=tuple(kept.path(image) if isinstance(image, bytes) else pictures.path(image) for image in row.images),
        candidates=row.candidates,
        label=majority(counts) if counts and label is None else label,
        counts=counts,
        response=row.response,
    )
