"""A folder of checkpoints: written aside, named when whole and on the disk, and read back only as it was written.

    step-000050/…              the large files, of whoever writes them
               /state.json     what the job's own process goes on from
               /manifest.json  size and CRC-32 of each of these, taken while it was written

A name that starts with a dot is of one that was never whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from learner.file_sums import FileSum, sync_folder, write_summed

logger = logging.getLogger(__name__)

_STATE, _MANIFEST = "state.json", "manifest.json"
_PREFIX = "step-"
_States, _Manifests = TypeAdapter(dict[str, Any]), TypeAdapter(dict[str, FileSum])

Content = TypeVar("Content")


class CheckpointError(ValueError):
    """A checkpoint is not what was written; the message names the file, what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose small files could be read; `refuse_others` says whether all of it is as it was written."""

    step: int  # steps taken
    folder: Path
    state: dict[str, Any]  # JSON
    manifest: Mapping[str, FileSum]  # by name in the folder

    def refuse_others(self, found: Mapping[str, FileSum | str]) -> None:
        """Raise CheckpointError for each file that is not the manifest's; `found` has sums, or why there is none."""
        wrong = [
            f"{name}: expected {expected}, found {found[name]}"
            for name, expected in self.manifest.items()
            if found[name] != expected
        ]
        if wrong:
            raise CheckpointError("; ".join(wrong))


class CheckpointFolder:
    """Checkpoints by step, of which the `kept` newest are kept."""

    def __init__(self, folder: Path, kept: int) -> None:
        self.path = folder
        self._kept = kept
        self._passed_over: set[Path] = set()

    def begin(self, step: int) -> Path:
        """An empty folder to write a checkpoint's large files into; of no effect before `commit`."""
        for left in self.path.glob(f".{_PREFIX}*"):  # of a process that died
            shutil.rmtree(left)
        aside = self._aside(step)
        aside.mkdir(parents=True)
        return aside

    def commit(self, step: int, state: Mapping[str, Any], sums: Mapping[str, FileSum]) -> None:
        """Write the state, and name the folder: from here on it is the newest checkpoint, and one of its step is gone.

        `sums` are of the large files, by name in the folder. Raises OSError where something cannot be written, and
        CheckpointError where this process does not see what others have written.
        """
        aside, final = self._aside(step), self.path / f"{_PREFIX}{step:06d}"
        for name, expected in sums.items():
            _refuse_unseen(aside / name, expected)
        own = write_summed(aside / _STATE, lambda file: file.write(_States.dump_json(dict(state))))
        manifest = {**sums, _STATE: own}
        write_summed(aside / _MANIFEST, lambda file: file.write(_Manifests.dump_json(manifest, indent=1)))
        for folder in {(aside / name).parent for name in manifest}:
            sync_folder(folder)
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        sync_folder(self.path)
        self._passed_over.discard(final)
        self._remove_old()

    def give_up(self, step: int) -> None:
        """Remove what was written of a checkpoint that will not be whole: others need the room."""
        shutil.rmtree(self._aside(step), ignore_errors=True)  # what stays goes with the next `begin`

    def newest_first(self) -> list[Path]:
        """The folders of all checkpoints, whatever is in them."""
        found = [folder for folder in self.path.glob(f"{_PREFIX}*") if folder.name.removeprefix(_PREFIX).isdecimal()]
        return sorted(found, key=_step, reverse=True)

    def read(self, folder: Path) -> Checkpoint:
        """State and manifest of a checkpoint. Raises CheckpointError where one of them cannot be read."""
        manifest, state = _read(folder / _MANIFEST, _Manifests), _read(folder / _STATE, _States)
        return Checkpoint(_step(folder), folder, state, manifest)

    def pass_over(self, folder: Path) -> None:
        """Count a checkpoint among none that are kept: it goes when another one is whole."""
        self._passed_over.add(folder)

    def _remove_old(self) -> None:
        good = [folder for folder in self.newest_first() if folder not in self._passed_over]
        for folder in (*good[self._kept :], *self._passed_over):
            try:
                shutil.rmtree(folder)
            except OSError as error:  # somebody has a file of it open on NFS, say: the new checkpoint is as good
                logger.warning("%s is not removed, which the next checkpoint tries again: %s", folder, error)
        self._passed_over = {folder for folder in self._passed_over if folder.exists()}

    def _aside(self, step: int) -> Path:
        return self.path / f".{_PREFIX}{step:06d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


def _read(file: Path, kind: TypeAdapter[Content]) -> Content:
    try:
        return kind.validate_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file.name}: expected what was written, found {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file.name}: expected the JSON that was written, found other bytes: {error}") from error


def _refuse_unseen(file: Path, expected: FileSum) -> None:
    size = file.stat().st_size if file.exists() else None
    if size != expected.size:
        raise CheckpointError(
            f"{file}: a learner rank wrote {expected}, found {'nothing' if size is None else f'{size} bytes'}: is the "
            "run's folder on storage that all nodes share?"
        )
