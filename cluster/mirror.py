"""A run's folder a second time, on storage that outlives the machine: whatever fsspec can write to.

Every file of the run is copied there as it is, but for those that are being written aside. What says that other files
are whole, a stage's `…-done.json`, is removed there before those change and comes back after them, and a checkpoint
proves itself by its manifest: no copy that was interrupted is taken for a whole one.

What others have put there, another machine's folder of the same run say, is theirs: it is never removed, and a job
whose folder is not the mirror's is refused as it begins.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fsspec

from cluster.run_folder import written_aside
from cluster.trials import FOLDER as TRIALS
from configs.schema import Mirror as Settings

logger = logging.getLogger(__name__)

_RECORD = ".mirrored.json"  # what was copied where, or begun to be: all that is removed there
_AT_THE_END = "rollouts"  # folders whose files grow all the time, and nobody goes on from

Stamp = list[int]  # size in bytes and time of the last change, of a file as it was copied
Copied = dict[str, Stamp | None]  # by name; None where it is not known whether the copy is whole


class MirrorError(ValueError):
    """The mirror cannot be read or written; the message names the file and what its storage said."""


class Mirror:
    """The copy of a folder."""

    def __init__(self, folder: Path, address: str) -> None:
        """Raises MirrorError for an address of no storage that is installed here."""
        self._folder = folder
        self._address = address
        try:
            self._storage, self._root = fsspec.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise MirrorError(f"mirror.address: {address}: {error}") from error
        self._copied = _recorded(folder / _RECORD, address)

    def send(self, *, whole: bool, seconds: float = math.inf, no_more: Callable[[], bool] = lambda: False) -> None:
        """Copy what has changed, and remove there what came from here and is no longer here.

        `whole`: the rollouts too, which may be many. It ends before the next file where `no_more` says so: another copy
        will have the rest. Raises MirrorError where a file cannot be copied, or is not begun within so many `seconds`;
        those before it are.
        """
        until = time.monotonic() + seconds
        here = _stamps(self._folder)
        wanted = [name for name in here if whole or _AT_THE_END not in Path(name).parts]
        changed = sorted((name for name in wanted if self._copied.get(name) != here[name]), key=_is_mark)
        there = self._names()
        gone = (there & self._copied.keys()) - here.keys()
        self._copied = {name: stamp for name, stamp in self._copied.items() if name in here or name in gone}
        self._copied.update(dict.fromkeys(changed))
        self._record()  # before any is sent: what is there of a process that was killed is known to be its
        try:
            for name in filter(_is_mark, there & {*gone, *changed}):
                self._remove(name)
            for number, name in enumerate(changed):
                if no_more():
                    return
                if time.monotonic() >= until:
                    raise TimeoutError(f"{number} of {len(changed)} files are copied after {seconds:.0f} s")
                self._put(name, here[name])
            for name in gone:
                if not _is_mark(name):
                    self._remove(name)
        except Exception as error:  # every storage has errors of its own
            raise MirrorError(f"{self._address} does not have all of {self._folder}: {error!r}") from error
        finally:
            self._record()

    def fetch(self) -> None:
        """Bring back what there is, where the folder is not here.

        Raises MirrorError where that does not work, and where the folder is here and the mirror has what it did not
        send: another one may be further on.
        """
        if self._folder.exists():
            self._refuse_others()
            return
        names = self._names()
        if not names:
            return
        logger.warning("%s is not here: fetching %d files from %s", self._folder, len(names), self._address)
        try:
            with written_aside(self._folder) as aside:
                for name in names:
                    if ".." in Path(name).parts:
                        raise ValueError(f"{name} leads out of the folder")
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    self._storage.get_file(self._at(name), str(aside / name))
                record = {"address": self._address, "files": _stamps(aside)}
                (aside / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        except Exception as error:
            raise MirrorError(f"{self._folder} cannot be fetched from {self._address}: {error!r}") from error

    def _refuse_others(self) -> None:
        """Raise MirrorError where the mirror has files that the folder did not send, but for what is the trials'."""
        try:
            names = self._names()
        except MirrorError as error:
            if not self._copied:
                raise
            logger.error("NOT COMPARED with %s, which is gone on from: %s", self._folder, error)
            return
        if others := sorted(name for name in names - self._copied.keys() if _is_the_runs(name)):
            raise MirrorError(
                f"{self._folder} is here, and {self._address} has {len(others)} files that did not come from it, "
                f"{others[0]} for one: another folder was copied there, which may be further on. To go on from the "
                f"mirror, move {self._folder} away, and the mirror is fetched; to go on from the folder, give a "
                "mirror.address that nothing was copied to yet"
            )

    def _record(self) -> None:
        """Write down what was copied. Raises MirrorError."""
        file = self._folder / _RECORD
        aside = file.with_name(f".{file.name}")  # a record that is cut off would be none
        try:
            aside.write_text(json.dumps({"address": self._address, "files": self._copied}), encoding="utf-8")
            aside.rename(file)
        except OSError as error:
            raise MirrorError(f"{file} cannot be written: {error}") from error

    def _names(self) -> set[str]:
        """Of the files that are there. Raises MirrorError."""
        try:
            self._storage.invalidate_cache()
            return {path.removeprefix(self._root).lstrip("/") for path in self._storage.find(self._root)}
        except Exception as error:
            raise MirrorError(f"{self._address} cannot be looked into: {error!r}") from error

    def _put(self, name: str, stamp: Stamp) -> None:
        at = self._at(name)
        self._storage.makedirs(at.rpartition("/")[0], exist_ok=True)
        try:
            self._storage.put_file(str(self._folder / name), at)
        except FileNotFoundError:
            if (self._folder / name).exists():
                raise
            return  # removed meanwhile, as an old checkpoint is
        self._copied[name] = stamp

    def _remove(self, name: str) -> None:
        self._storage.rm_file(self._at(name))
        self._copied.pop(name, None)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@asynccontextmanager
async def mirrored(folder: Path, settings: Settings) -> AsyncIterator[None]:
    """Keep the mirror, where there is to be one, up to date in this block, and leave it whole.

    What fails on the way is tried again with the next copy. Raises MirrorError where the last one fails, unless the
    block ends in an error of its own.
    """
    if settings.address is None:
        yield
        return
    mirror, ended = Mirror(folder, settings.address), asyncio.Event()
    copying = asyncio.create_task(_keep(mirror, settings, ended))
    try:
        yield
    except BaseException:
        ended.set()
        if failure := (await asyncio.gather(copying, return_exceptions=True))[0]:
            logger.error("NOT MIRRORED: %s", failure)
        raise
    ended.set()
    await copying


async def _keep(mirror: Mirror, settings: Settings, ended: asyncio.Event) -> None:
    seconds = settings.seconds_between_copies
    while not ended.is_set():
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            try:
                await asyncio.to_thread(mirror.send, whole=False, no_more=ended.is_set)
            except MirrorError as error:
                logger.error("NOT MIRRORED, the next copy is tried in %.0f s: %s", seconds, error)
    await asyncio.to_thread(mirror.send, whole=True, seconds=settings.seconds_for_last_copy)


def _is_mark(name: str) -> bool:
    return name.endswith("-done.json")


def _is_the_runs(name: str) -> bool:
    """Not a trial's, which has its own mirror there, and nothing that a storage keeps for itself."""
    parts = Path(name).parts
    return parts[0] != TRIALS and not any(part.startswith(".") for part in parts)


def _stamps(folder: Path) -> dict[str, Stamp]:
    """Files by their names in the folder, without those whose name, or a folder's of theirs, starts with a dot."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # removed meanwhile
            found[path.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns]
    return found


def _recorded(file: Path, address: str) -> Copied:
    """What was copied to this address; nothing where that is not known."""
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record["files"] if record["address"] == address else {}
