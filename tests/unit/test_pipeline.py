"""Stages one after the other or each alone, with trainings and evaluations that only note that they were asked for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import pipeline
from cluster.digests import is_finished, is_trained
from cluster.job_book import entries, working_in
from cluster.pipeline import run_one_stage, run_pipeline
from cluster.prompt_lengths import PromptLengths
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from configs.load import load_recipe
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(DEMO, [f"output={tmp_path}/run"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was done, in its order. Evaluating stage 3 is told to stop."""
    done: list[str] = []

    async def fine_tune(job: Any, number: int) -> None:
        done.append(f"train {number}")
        job.run.stage(number).model.mkdir()

    async def reinforce(job: Any) -> None:
        await fine_tune(job, 3)

    async def evaluate(job: Any, number: int) -> None:
        done.append(f"evaluate {number}")
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    monkeypatch.setattr(pipeline, "_prepare", lambda *_: None)
    monkeypatch.setattr(pipeline, "refuse_tree_masks", lambda *_: None)

    async def fits(self: PromptLengths, model_dir: str) -> None:
        pass

    monkeypatch.setattr(PromptLengths, "check", fits)
    monkeypatch.setattr("cluster.pipeline._Job._fine_tune", fine_tune)
    monkeypatch.setattr("cluster.pipeline._Job._reinforce", reinforce)
    monkeypatch.setattr("cluster.pipeline._Job._evaluate", evaluate)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield done
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_pipeline_that_is_told_to_stop_has_finished_what_it_finished(recipe: Recipe, asked: list[str]) -> None:
    with pytest.raises(Stopped, match="the same command goes on"):
        run_pipeline(recipe)

    assert asked == ["train 1", "evaluate 1", "train 2", "evaluate 2", "train 3", "evaluate 3"]
    assert [is_finished(recipe, number) for number in (1, 2, 3)] == [True, True, False]
    assert is_trained(recipe, 3)
    assert entries(RunFolder.of(recipe).path)[-1].doing == "stopped"

    asked.clear()
    with pytest.raises(Stopped):
        run_pipeline(recipe)
    assert asked == ["evaluate 3"]


def test_a_stage_whose_rows_were_changed_is_done_again_and_what_was_there_is_kept(
    tmp_path: Path, asked: list[str]
) -> None:
    for name in ("stage1", "stage2", "stage3", "seen", "unseen"):
        (tmp_path / f"{name}.jsonl").write_text(name, encoding="utf-8")
    recipe = load_recipe(DEMO, [f"output={tmp_path}/run", f"data.root={tmp_path}"])
    with pytest.raises(Stopped):
        run_pipeline(recipe)
    asked.clear()

    (tmp_path / "stage2.jsonl").write_text("other rows", encoding="utf-8")
    assert [is_finished(recipe, number) for number in (1, 2)] == [True, False]
    with pytest.raises(Stopped):
        run_pipeline(recipe)

    assert asked == ["train 2", "evaluate 2", "train 3", "evaluate 3"]
    assert sorted(path.name for path in (tmp_path / "run").glob("stage*")) == [
        "stage1", "stage2", "stage2.1", "stage3", "stage3.1",
    ]  # fmt: skip


def test_a_stage_whose_settings_were_changed_is_done_again_and_says_which_but_for_those_of_memory(
    recipe: Recipe, tmp_path: Path, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Stopped):
        run_pipeline(recipe)
    smaller = [f"output={tmp_path}/run", "learner.tokens_per_micro_batch=512"]

    asked.clear()
    with pytest.raises(Stopped):
        run_pipeline(load_recipe(DEMO, smaller))
    after_memory, warned = [*asked], [*caplog.messages]
    asked.clear()
    with pytest.raises(Stopped):
        run_pipeline(load_recipe(DEMO, [*smaller, "rl.steps=7"]))

    assert after_memory == ["evaluate 3"]
    assert asked == ["train 3", "evaluate 3"]
    assert not any("comes from other" in message for message in warned)
    assert f"stage3 comes from other settings: rl.steps was {recipe.rl.steps}, is 7" in caplog.text


@pytest.mark.parametrize("evaluated, done", [(False, ["train 1"]), (True, ["train 1", "evaluate 1"])])
def test_a_stage_alone_is_evaluated_where_it_is_asked_for(
    recipe: Recipe, asked: list[str], evaluated: bool, done: list[str]
) -> None:
    assert run_one_stage(recipe, 1, evaluated=evaluated) == 0

    assert asked == done


def test_a_stage_without_its_predecessor_is_not_begun(recipe: Recipe, asked: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match="run stage 1 first"):
        run_one_stage(recipe, 2)
    assert asked == []


def test_a_run_that_another_job_has_is_left_alone(recipe: Recipe, asked: list[str]) -> None:
    with working_in(RunFolder.of(recipe).path), pytest.raises(ValueError, match="is in use: preparing since"):
        run_one_stage(recipe, 1)
    assert asked == []
