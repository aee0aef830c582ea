"""An SFT stage's steps, with ranks that only note what they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.job_checkpoints import JobCheckpoints
from cluster.run_log import RunLog
from cluster.sft_columns import SFT_COLUMNS
from cluster.stages import _sft_steps
from configs.load import load_recipe
from learner.file_sums import FileSum, found_sums
from learner.sft import SftReport

RECIPE = load_recipe(
    Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml",
    ["stage1.steps=6", "stage1.checkpoint_every_steps=4", "stage1.eval_every_steps=100"],
)


@dataclass
class Ranks:
    """Ranks that are told to stop while they take a step."""

    stop: asyncio.Event
    stop_within: int | None = None  # a step, counted from 1
    size: int = 1

    def __post_init__(self) -> None:
        self.trained: list[int] = []

    async def call(self, method: str, *arguments: Any) -> list[Any]:
        if method == "evaluate":
            return [0.5]
        if method == "train":
            self.trained.append(arguments[0] + 1)
            if self.stop_within == arguments[0] + 1:
                self.stop.set()
            return [SftReport(step=arguments[0], loss=1.0, grad_norm=1.0, learning_rate=1e-3, tokens=10, seconds=0.1)]
        assert method == "checkpoint_files"
        return [{}]

    async def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [getattr(self, method)(*own) for own in arguments]

    def save_checkpoint(self, folder: str, name: str, groups: Sequence[object]) -> None:
        pass  # it has no files

    def checkpoint_sums(self, folder: str, names: Sequence[str]) -> dict[str, FileSum | str]:
        return found_sums(Path(folder), names)

    def load_checkpoint(self, folder: str, names: Sequence[str]) -> list[object]:
        return []


def steps(folder: Path, stop_within: int | None = None) -> tuple[int, list[int]]:
    """The step that was reached, and those that were taken for it."""

    async def job() -> tuple[int, list[int]]:
        ranks = Ranks(asyncio.Event(), stop_within)
        with RunLog(folder, "stage1", SFT_COLUMNS, RECIPE) as log:
            folders = CheckpointFolder(folder / "checkpoints", RECIPE.stage1.checkpoints_kept)
            checkpoints = JobCheckpoints(folders, ranks)  # type: ignore[arg-type]
            done = await _sft_steps(RECIPE.stage1, ranks, checkpoints, log, ranks.stop)  # type: ignore[arg-type]
        return done, ranks.trained

    return asyncio.run(job())


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_stage_stops_after_the_step_that_is_under_way_and_goes_on_from_there(tmp_path: Path, step: int) -> None:
    done, taken = steps(tmp_path, stop_within=step)

    assert (done, taken) == (step, list(range(1, step + 1)))
    assert checkpoints(tmp_path)[-1] == f"step-{step:06d}"
    assert (tmp_path / "log.jsonl").read_text().splitlines()[-1].startswith(f'{{"step": {step},')

    assert steps(tmp_path) == (6, list(range(step + 1, 7)))


def test_without_a_word_it_goes_to_the_end(tmp_path: Path) -> None:
    assert steps(tmp_path) == (6, [1, 2, 3, 4, 5, 6])
    assert checkpoints(tmp_path) == ["step-000004", "step-000006"]
