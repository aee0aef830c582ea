"""Where a run keeps what: one folder, known names."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.stage_settings import Settings, changes
from configs.schema import Recipe

logger = logging.getLogger(__name__)

LogLine = Mapping[str, float | None]

_DONE = "{}-done.json"
_SETTINGS = "settings.json"  # what the stage's training depends on, and its name


@dataclass(frozen=True, slots=True)
class StageFolder:
    """The folder of one stage."""

    path: Path

    @property
    def model(self) -> Path:
        """The Hugging Face directory the stage ends in."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the learner."""
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        """Scored groups (stage 3)."""
        return self.path / "rollouts"

    @property
    def log(self) -> list[LogLine]:
        """The whole lines of its log, ascending by step; [] where it has not begun."""
        file = self.path / "log.jsonl"
        return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]] if file.exists() else []

    @property
    def rows(self) -> str | None:
        """Names the rows that its model was trained on; None where that is not known."""
        mark = self.path / _DONE.format("training")
        rows: str | None = json.loads(mark.read_text(encoding="utf-8")).get("rows") if mark.exists() else None
        return rows

    @property
    def weights(self) -> Path:
        """The reward weights that `caliber reweight` asks for (stage 3)."""
        return self.path / "reward_weights.json"

    @property
    def seeds(self) -> Path:
        """Rows with seeded confidences (stage 2)."""
        return self.path / "seeded.jsonl"

    def evaluation(self, name: str) -> Path:
        """Predictions and metrics on an evaluation file."""
        return self.path / "evaluation" / name

    @property
    def begun(self) -> bool:
        """Whether it holds anything but the weights that were asked for before the stage began."""
        asked = self.weights.name  # or, with a dot before it, one that was being written
        return self.path.exists() and not all(p.name.lstrip(".").startswith(asked) for p in self.path.iterdir())

    def of_others(self, digest: str) -> bool:
        """Whether it was claimed for other settings, and so is set aside when the stage is next trained."""
        mark = self.path / _SETTINGS
        return mark.exists() and not _names(mark, digest)

    def claim(self, digest: str, rows: str | None = None, settings: Settings | None = None) -> None:
        """Take the folder for training from settings and rows of these names; what others left is set aside, whole.

        The `settings` themselves, where they are given, tell the next one what differs.
        """
        mark = self.path / _SETTINGS
        if self.begun and not _names(mark, digest, rows):
            logger.warning("%s comes from other %s", self.path, _what_differs(mark, digest, settings or {}))
            if self.weights.exists():
                logger.warning("the weights that `caliber reweight` asked for go with it; the recipe's hold")
            self.set_aside()
        self.path.mkdir(parents=True, exist_ok=True)
        _write_mark(mark, digest, rows, settings)

    def start_anew(self, *, force: bool) -> None:
        """Set aside what there is. Raises ValueError, without `force`, where that is a model or a checkpoint."""
        kept = [path for path in (self.checkpoints, self.model) if path.exists() and any(path.iterdir())]
        if kept and not force:
            raise ValueError(
                f"--fresh would start {self.path.name} anew, and there is {' and '.join(map(str, kept))}: leave it out "
                "to go on from there, or add --force to have the folder set aside under another name"
            )
        if self.begun:
            self.set_aside()

    def set_aside(self) -> None:
        """Give the folder another name, whole: nothing is removed."""
        numbers = itertools.count(1)
        aside = next(path for n in numbers if not (path := self.path.with_name(f"{self.path.name}.{n}")).exists())
        self.path.rename(aside)
        logger.warning("%s is moved to %s, the stage starts anew", self.path, aside)

    @property
    def trained(self) -> bool:
        """Whether the stage's training ended, from whatever settings."""
        return (self.path / _DONE.format("training")).exists()

    def finished(self, what: str, digest: str, rows: str | None = None) -> bool:
        """Whether the stage's training or evaluation ended, from the same settings, the same start and the same rows.

        Without `rows`, or where the mark has none, whatever they were.
        """
        return _names(self.path / _DONE.format(what), digest, rows)

    def finish(self, what: str, digest: str, rows: str | None = None) -> None:
        """Mark the stage's training or evaluation as ended."""
        _write_mark(self.path / _DONE.format(what), digest, rows)

    def unfinish(self, what: str) -> None:
        """Take such a mark back, where there is one."""
        (self.path / _DONE.format(what)).unlink(missing_ok=True)


def _names(mark: Path, digest: str, rows: str | None = None) -> bool:
    if not mark.exists():
        return False
    written = json.loads(mark.read_text(encoding="utf-8"))
    return bool(written["digest"] == digest and (rows is None or written.get("rows") in (None, rows)))


def _write_mark(mark: Path, digest: str, rows: str | None, settings: Settings | None = None) -> None:
    aside = mark.with_name(f".{mark.name}")
    known = {"digest": digest, "rows": rows} | ({} if settings is None else {"settings": settings})
    aside.write_text(json.dumps(known), encoding="utf-8")
    aside.rename(mark)


def _what_differs(mark: Path, digest: str, settings: Settings) -> str:
    """From those that a mark names: data, or which settings, where it knows."""
    if _names(mark, digest):
        return "data"
    before = json.loads(mark.read_text(encoding="utf-8")).get("settings") if mark.exists() else None
    return f"settings: {', '.join(changes(before, settings))}" if before else "settings"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run."""

    path: Path

    @classmethod
    def of(cls, recipe: Recipe) -> RunFolder:
        """The folder a recipe names."""
        return cls(Path(recipe.output).absolute())

    @property
    def starting_model(self) -> Path:
        """The starting model, where the recipe has one made."""
        return self.stage(1).path / "start"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    def stage(self, number: int) -> StageFolder:
        """The folder of stage 1, 2 or 3."""
        return StageFolder(self.path / f"stage{number}")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes `folder`'s name when all went well, and is removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        os.chmod(aside, 0o755)  # mkdtemp's folder is its owner's alone
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
