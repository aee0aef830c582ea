"""Tests of cluster.live_weights: the mix of a running job."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cluster import live_weights
from cluster.digests import training_digest
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


def test_weights_that_are_asked_for_before_stage_3_begins_are_those_of_its_first_step(tmp_path: Path) -> None:
    run, live = run_in(tmp_path)

    reweight(run, ["calibration=0.5"])
    run.stage(3).claim(training_digest(load_recipe(run.recipe), 3))

    assert live.current(1) == RewardWeights(calibration=0.5)
    assert [path.name for path in tmp_path.glob("stage3*")] == ["stage3"]


def test_weights_for_a_stage_that_is_to_start_anew_are_refused(tmp_path: Path) -> None:
    run, _ = run_in(tmp_path)
    run.stage(3).claim("of other settings")

    with pytest.raises(ValueError, match=r"stage3 comes from other settings than .*recipe\.yaml.* ask again then"):
        reweight(run, ["calibration=0.5"])

    assert not run.stage(3).weights.exists()


def test_of_two_changes_at_once_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, live = run_in(tmp_path)
    asked_for, both = live_weights.weights_asked_for, threading.Barrier(2)

    def read_together(run: RunFolder) -> RewardWeights:
        found = asked_for(run)
        with suppress(threading.BrokenBarrierError):  # the other waits for its turn
            both.wait(0.5)
        return found

    monkeypatch.setattr(live_weights, "weights_asked_for", read_together)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda change: reweight(run, [change]), ["calibration=0.5", "correctness=2"]))

    assert live.current(1) == RewardWeights(correctness=2.0, calibration=0.5)


@pytest.mark.parametrize(
    "change",
    [
        "calibraton=0.5",
        "calibration=-1",
        "calibration",
        "calibration=much",
        "calibration=",
        "calibration= ~",
        "calibration=null",
    ],
)
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


def test_a_file_that_cannot_be_read_is_told_once_and_the_weights_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, live = run_in(tmp_path)
    reweight(run, ["calibration=0.5"])
    live.current(1)
    run.stage(3).weights.unlink()
    run.stage(3).weights.mkdir()
    caplog.clear()

    found = [live.current(step) for step in (2, 3)]
    run.stage(3).weights.rmdir()
    reweight(run, ["calibration=2"])

    assert found == [RewardWeights(calibration=0.5)] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert f"{run.stage(3).weights} cannot be read, the weights stay" in caplog.text
    assert live.current(4) == RewardWeights(calibration=2.0)


def test_what_is_unsafe_is_told_of_the_mix_that_is_trained_with(tmp_path: Path) -> None:
    joint = ["rewards.credit=joint", "rewards.confidence_gradient=sampled", "rewards.allow_unsafe=true"]
    run, live = run_in(tmp_path, *joint)

    told = [live.warnings()]
    reweight(run, ["calibration=2"])
    told += [live.warnings() for step in (1,) if live.current(step)]
    live.restore(RewardWeights().model_dump())
    told += [live.warnings()]

    assert [len(warnings) for warnings in told] == [0, 1, 0]
    assert told[1][0].startswith("UNSAFE REWARD MIX: Below p = 0.500")


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
