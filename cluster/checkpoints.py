"""A folder of checkpoints: written aside, named when whole, the oldest removed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEPT = 2  # the newest, and the one before it should the newest turn out unreadable
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint."""

    step: int  # steps taken
    folder: Path
    state: dict[str, Any]  # JSON


class CheckpointFolder:
    """Checkpoints by step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, step: int) -> Path:
        """An empty folder to write a checkpoint's large files into; of no effect before `commit`."""
        aside = self._folder / f".step-{step:06d}"
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        return aside

    def commit(self, step: int, state: dict[str, Any]) -> None:
        """Write the state and name the folder: from here on it is the newest checkpoint."""
        aside = self._folder / f".step-{step:06d}"
        with (aside / _STATE).open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        final = self._folder / f"step-{step:06d}"
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
        for old in self._whole()[:-_KEPT]:
            shutil.rmtree(old)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint."""
        found = self._whole()
        if not found:
            return None
        state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
        return Checkpoint(int(found[-1].name.removeprefix("step-")), found[-1], state)

    def _whole(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("step-*") if (path / _STATE).exists())
