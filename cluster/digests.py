"""What each stage depends on, settings and data, and so whether it has to be done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cluster.run_folder import RunFolder
from cluster.stage_settings import digest, settings_of
from configs.choices import SeedSource
from configs.schema import Recipe
from rollout.picture_store import FOLDER

STAGES = (1, 2, 3)
_COMMON = ("seed", "data", "model", "response", "learner")
_OWN = {1: ("stage1",), 2: ("seeding", "stage2"), 3: ("rl", "rewards")}


def training_settings(recipe: Recipe, number: int) -> dict[str, object]:
    """What a stage's training depends on, the stages before it included."""
    own = (section for stage in STAGES[:number] for section in _OWN[stage])
    found = settings_of(recipe, (*_COMMON, *own))
    if number == 2 and recipe.seeding.source is not SeedSource.ANNOTATORS:
        found["rl"] = {"response_tokens": recipe.rl.response_tokens}  # of the samples that it is seeded from
    return found


def training_digest(recipe: Recipe, number: int) -> str:
    """Names them."""
    return digest(training_settings(recipe, number))


def evaluation_digest(recipe: Recipe, number: int) -> str:
    """Names what its evaluation depends on."""
    files = [f"{name}: {file}" for name, file in recipe.data.evaluation.items()]
    right = (recipe.rewards.correctness, "" if recipe.rewards.judge is None else recipe.rewards.judge.model_dump_json())
    return digest(settings_of(recipe, ("evaluation",)), training_digest(recipe, number), files, right)


def training_rows(recipe: Recipe, number: int) -> str | None:
    """Names the rows that a stage is trained on: those of its file, and those that its start was trained on.

    None where the file is not on this machine.
    """
    file = (recipe.data.stage1, recipe.data.stage2, recipe.data.stage3)[number - 1]
    start = RunFolder.of(recipe).stage(number - 1).rows if number > 1 else None
    return _rows(recipe, [file], start)


def evaluation_rows(recipe: Recipe, number: int) -> str | None:
    """The same of its evaluation: those of its files, and those that its model was trained on."""
    return _rows(recipe, recipe.data.evaluation.values(), RunFolder.of(recipe).stage(number).rows)


def is_trained(recipe: Recipe, number: int) -> bool:
    """Whether a stage was trained to its end from these settings and the same start."""
    return RunFolder.of(recipe).stage(number).finished("training", training_digest(recipe, number))


def is_up_to_date(recipe: Recipe, number: int) -> bool:
    """Whether that was with the rows that are in the files now, too."""
    stage = RunFolder.of(recipe).stage(number)
    return stage.finished("training", training_digest(recipe, number), training_rows(recipe, number))


def is_finished(recipe: Recipe, number: int) -> bool:
    """Whether it is up to date, and so is its evaluation."""
    stage = RunFolder.of(recipe).stage(number)
    evaluated = stage.finished("evaluation", evaluation_digest(recipe, number), evaluation_rows(recipe, number))
    return evaluated and is_up_to_date(recipe, number)


def _rows(recipe: Recipe, names: Iterable[str], before: str | None) -> str | None:
    found = hashlib.sha256((before or "").encode())
    try:
        for name in names:
            found.update(_content(Path(recipe.data.root) / name))
    except OSError:
        return None
    return found.hexdigest()[:16]


def _content(path: Path) -> bytes:
    """Of a file, or of all files of a folder and their names, but for the pictures that were taken out of rows."""
    if not path.is_dir():
        status = path.stat()
        return _file_content(path.absolute(), status.st_size, status.st_mtime_ns)
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and FOLDER not in name.parts:
            found.update(str(name).encode() + b"\0" + _content(file))
    return found.digest()


@cache
def _file_content(path: Path, size: int, changed: int) -> bytes:
    """Read again where the size, in bytes, or the time of the last change, in ns, is another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
