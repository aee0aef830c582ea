"""Tests of cluster.live_weights: the mix of a running job."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cluster.live_weights import LiveWeights, reweight
from cluster.run_folder import RunFolder
from configs.load import RecipeError, load_recipe, write_resolved
from configs.schema import Rewards, RewardWeights

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def run_in(folder: Path, *overrides: str) -> tuple[RunFolder, LiveWeights]:
    run = RunFolder(folder)
    recipe = load_recipe(DEMO, ["rewards.weights.format=1", *overrides])
    write_resolved(recipe, run.recipe)
    return run, LiveWeights(run.stage(3).weights, recipe.rewards)


def test_a_running_job_has_the_recipes_weights_until_it_is_told_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, live = run_in(tmp_path)

    first = live.current(1)
    reweight(run, ["calibration=0.5"])

    assert first == RewardWeights()
    assert live.current(2) == live.current(3) == RewardWeights(calibration=0.5)
    assert caplog.text.count("reward weights from step 2 on: correctness 1, calibration 0.5, format 1") == 1


def test_a_second_change_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    run, live = run_in(tmp_path)

    reweight(run, ["calibration=0.5"])
    before, after = reweight(run, ["correctness=2", "format=3"])

    assert before == RewardWeights(calibration=0.5)
    assert after == live.current(1) == RewardWeights(correctness=2.0, calibration=0.5, format=3.0)


@pytest.mark.parametrize("change", ["calibraton=0.5", "calibration=-1", "calibration", "calibration=much"])
def test_a_change_that_is_none_is_refused_and_changes_nothing(tmp_path: Path, change: str) -> None:
    run, live = run_in(tmp_path)

    with pytest.raises(RecipeError, match="calibrat"):
        reweight(run, [change])

    assert live.current(1) == RewardWeights()
    assert not run.stage(3).weights.exists()


def test_a_mix_that_can_be_gamed_is_refused_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    joint = ["rewards.credit=joint", "rewards.confidence_gradient=sampled"]
    strict, _ = run_in(tmp_path / "strict", *joint)
    lax, live = run_in(tmp_path / "lax", *joint, "rewards.allow_unsafe=true")

    with pytest.raises(ValueError, match=r"unsafe .*\n.*Below p = 0.500"):
        reweight(strict, ["calibration=2"])
    reweight(lax, ["calibration=2"])

    assert live.current(1).calibration == 2.0


@pytest.mark.parametrize("text", ["{", '{"calibration": -1}', '{"style": 1}', '{"format": 0}'])
def test_a_file_that_cannot_be_used_is_told_once_and_the_weights_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    run, live = run_in(tmp_path)
    run.stage(3).path.mkdir()
    run.stage(3).weights.write_text(text)

    found = [live.current(step) for step in (1, 2)]

    assert found == [RewardWeights()] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(run.stage(3).weights) in caplog.text


def test_a_resumed_job_has_the_checkpoints_weights_and_a_files_last_word(tmp_path: Path) -> None:
    live = LiveWeights(tmp_path / "weights.json", Rewards())

    live.restore({"correctness": 1.0, "calibration": 0.25, "format": 1.0})
    restored = live.current(5)
    (tmp_path / "weights.json").write_text(RewardWeights(calibration=4.0).model_dump_json())

    assert restored.calibration == 0.25
    assert live.current(6).calibration == 4.0


def test_where_there_is_no_run_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        reweight(RunFolder(tmp_path), ["calibration=1"])
