"""Which job works in a run's folder, and what it is at: a file of lines, locked by the one job that may write there.

The lock is the kernel's and ends with the process, however that ends: what it says is true when nobody could say more.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from cluster.ray_job import submission_id
from cluster.stopped import Stopped

logger = logging.getLogger(__name__)

PREPARING, TRAINING, SEEDING, EVALUATING = "preparing", "training", "seeding confidences for", "evaluating"
ENDED, STOPPED, FAILED = "ended", "stopped", "failed"
_SECONDS_FOR_A_LOOK = 1.0  # at the lock, which `caliber status` takes for it


@dataclass(frozen=True, slots=True)
class Entry:
    """What a job said of itself."""

    time: float  # seconds of the epoch
    doing: str
    stage: int | None  # None: no stage was begun
    process: str
    submission: str | None  # id under which Ray's jobs have it

    def __str__(self) -> str:
        which = self.process if self.submission is None else f"{self.submission} ({self.process})"
        stage = "" if self.stage is None else f" stage {self.stage}"
        return f"{self.doing}{stage} since {time.strftime('%d %b %H:%M', time.localtime(self.time))}, {which}"


class JobBook:
    """The file, open and locked."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._stage: int | None = None
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._submission = submission_id()

    def now(self, doing: str, stage: int | None = None) -> None:
        """Write down what the job is at, of the stage that was named last."""
        self._stage = stage or self._stage
        entry = Entry(time.time(), doing, self._stage, self._process, self._submission)
        self._file.write(json.dumps(asdict(entry)) + "\n")
        self._file.flush()


@contextmanager
def working_in(folder: Path) -> Iterator[JobBook]:
    """Have a run's folder to oneself. Raises ValueError where another job has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _file(folder).open("a+", encoding="utf-8") as file:
        if not _locked(file):
            raise ValueError(f"{folder} is in use: {last_entry(folder)}. Wait for that job, or stop it first")
        file.seek(0)
        if not f"\n{file.read()}".endswith("\n"):
            file.write("\n")  # behind a line that a full disk cut off
        book = JobBook(file)
        book.now(PREPARING)
        try:
            yield book
        except BaseException as error:
            book.now(STOPPED if isinstance(error, Stopped | KeyboardInterrupt) else FAILED)
            raise
        book.now(ENDED)


def entries(folder: Path) -> list[Entry]:
    """What the jobs in a run's folder have written, in its order, without lines that were cut off."""
    file, found = _file(folder), []
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # the last is empty, or not yet whole
    for number, line in enumerate(lines, 1):
        try:
            found.append(Entry(**json.loads(line)))
        except ValueError:
            logger.warning("%s, line %d is not whole and is left out", file, number)
    return found


def last_entry(folder: Path) -> Entry | None:
    """The last of them."""
    return next(reversed(entries(folder)), None)


def in_use(folder: Path) -> bool:
    """Whether a job works in a run's folder now."""
    if not _file(folder).exists():
        return False
    with _file(folder).open(encoding="utf-8") as file:
        return not _lock(file, fcntl.LOCK_SH)


def _locked(file: IO[str]) -> bool:
    """Whether the file is this job's now; who only looks whether it is another's has it for a moment."""
    until = time.monotonic() + _SECONDS_FOR_A_LOOK
    while not (locked := _lock(file, fcntl.LOCK_EX)) and time.monotonic() < until:
        time.sleep(_SECONDS_FOR_A_LOOK / 20)
    return locked


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # storage that knows no locks
        logger.warning("%s cannot be locked, two jobs at once would not be noticed: %s", file.name, error)
    return True


def _file(folder: Path) -> Path:
    return folder / "jobs.jsonl"
