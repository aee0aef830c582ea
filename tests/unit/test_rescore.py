"""Tests of cluster.rescore."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.cli import main
from cluster.rescore import rescore, rescore_table, scored_groups
from cluster.run_folder import RunFolder
from cluster.saved_groups import saved_groups
from configs.load import RecipeError, load_recipe, write_resolved
from configs.schema import RewardWeights
from rollout.rollout_file import RolloutWriter
from rollout.trajectory import Group, Score, Span, Trajectory, VersionSpan
from tests.unit.groups import example_group, example_sample

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
DEFAULT_MIX = ("rewards.weights.format=1", "rewards.baseline=mean")


def scored(correct: float, confidence: float) -> Trajectory:
    parts = {"correctness": correct, "calibration": -((confidence - correct) ** 2), "format": 1.0}
    score = Score("joy", confidence, None, correct, correct, parts, None, None, Span(2, 4))
    return Trajectory(example_sample(), score)


def malformed() -> Trajectory:
    parts = {"correctness": 0.0, "calibration": -1.0, "format": 0.0}
    return Trajectory(example_sample(), Score(None, None, "missing_tag", None, None, parts, None, None, None))


def group(number: int, *trajectories: Trajectory) -> Group:
    return replace(example_group(), group_id=number, trajectories=trajectories)


def run_with(folder: Path, *groups: Group, overrides: tuple[str, ...] = ()) -> RunFolder:
    run = RunFolder(folder)
    write_resolved(load_recipe(DEMO, [*DEFAULT_MIX, *overrides]), run.recipe)
    for worker in (0, 1):
        with RolloutWriter(run.stage(3).rollouts / f"reward-{worker}.rollouts") as file:
            for one in groups[worker::2]:
                file.append(one)
    return run


JOINT = ("rewards.credit=joint", "rewards.confidence_gradient=sampled")
BOLD, MEEK = scored(1.0, 0.2), scored(0.0, 0.1)  # under much calibration the meek one is worth more


def test_the_same_mix_changes_nothing(tmp_path: Path) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK), group(1, BOLD, BOLD, malformed()))

    _, _, everything = rescore(run, ["calibration=1.0"]).changes

    assert (everything.groups, everything.responses) == (2, 5)
    assert everything.reward[0] == everything.reward[1] == pytest.approx(np.mean([1.36, 0.99, 1.36, 1.36, -1.0]))
    assert everything.answer_correlation == pytest.approx(1.0)
    assert (everything.answer_turned, everything.confidence_turned, everything.best_changed) == (0.0, 0.0, 0.0)


def test_jointly_more_calibration_turns_the_best_answer_round(tmp_path: Path) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK), overrides=JOINT)

    changes = rescore(run, ["calibration=4"]).changes

    assert changes[-1].reward == pytest.approx(((1.36 + 0.99) / 2, (2 - 2.56 + 1 - 0.04) / 2))
    assert (changes[-1].answer_turned, changes[-1].best_changed) == (1.0, 1.0)


def test_apart_the_answers_advantages_do_not_depend_on_the_weight_of_calibration(tmp_path: Path) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK), group(1, MEEK, BOLD, BOLD))

    changes = rescore(run, ["calibration=4"]).changes

    assert changes[-1].answer_correlation == pytest.approx(1.0)
    assert changes[-1].answer_turned == 0.0


def test_a_group_that_was_scored_twice_counts_once_and_in_the_order_of_admission(tmp_path: Path) -> None:
    last = replace(group(4, BOLD, MEEK), admitted=2.0)  # sampled again, and written by the other worker
    run = run_with(tmp_path, last, group(4, BOLD, BOLD), group(2, MEEK, MEEK))

    found = scored_groups(run.stage(3).rollouts)

    assert [[score.correct for score in scores] for _, scores in found] == [[0.0, 0.0], [1.0, 0.0]]


def test_a_damaged_file_is_read_up_to_there_and_the_others_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with(tmp_path, *(group(number, BOLD, MEEK) for number in range(6)))
    damaged = run.stage(3).rollouts / "reward-0.rollouts"  # groups 0, 2 and 4
    (run.stage(3).rollouts / "reward-2.rollouts").write_text("no rollouts")
    size = damaged.stat().st_size
    data = bytearray(damaged.read_bytes())
    data[size // 2] ^= 0x40
    damaged.write_bytes(data)

    found = saved_groups(run.stage(3).rollouts)

    assert [group.group_id for group in found] == [0, 1, 3, 5]
    of_damaged, of_other = caplog.messages
    assert f"{damaged}: record at byte " in of_damaged
    assert "reward-2.rollouts: got b'no rollouts', expected a rollout file" in of_other
    assert damaged.read_bytes() == data


@pytest.mark.parametrize(
    "change, why",
    [
        ("scoring_rule=log", "decides the raw parts"),
        ("log_clip=0.2", "decides the raw parts"),
        ("reference=label", "decides the raw parts"),
        ("target.outcome=1", "decides the raw parts"),
        ("correctness=2.0", None),
        ("preset=rlvr", "stands for settings that a run's recipe has one by one"),
        ("confidence_gradient=sampled", "is about the learner's step"),
        ("confidence_token_weight=3", "is about the learner's step"),
        ("allow_unsafe=true", "lets a job start"),
        ("weights={calibration: 3}", "are changed one by one"),
        ("weights.calibration=3", None),
        ("divide_by_std=true", None),
    ],
)
def test_what_saved_rollouts_cannot_tell_is_refused(tmp_path: Path, change: str, why: str | None) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK))

    if why is None:
        found = rescore(run, [change])
        assert rescore_table(found) != rescore_table(replace(found, after=found.before))
    else:
        section = change.partition("=")[0].partition(".")[0]
        with pytest.raises(ValueError, match=f"rewards.{section} {why}.* change a weight .*, credit, baseline"):
            rescore(run, [change])


@pytest.mark.parametrize("change", ["calibration=", "calibration=null", "credit=~"])
def test_a_change_without_a_value_is_none(tmp_path: Path, change: str) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK), overrides=("rewards.weights.calibration=2",))

    with pytest.raises(RecipeError, match="got no value"):
        rescore(run, [change])


def at(version: int, one: Group) -> Group:
    """The group, sampled under those weights."""
    spans = (VersionSpan(version, 0, 4),)
    sampled = [replace(t, sample=replace(t.sample, version_spans=spans)) for t in one.trajectories]
    return replace(one, trajectories=tuple(sampled))


def test_before_is_what_each_group_was_trained_with(tmp_path: Path) -> None:
    """Steps 1 and 2 with a calibration of 1, and from 3 on with 4."""
    run = run_with(tmp_path, *(at(n, group(n, BOLD, MEEK)) for n in range(4)), overrides=JOINT)
    for n in (1, 2, 3):
        weights = {"weight/correctness": 1.0, "weight/calibration": 1.0 if n < 3 else 4.0, "weight/format": 1.0}
        with (run.stage(3).path / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": n, **weights}) + "\n")
    run.stage(3).weights.write_text(RewardWeights(calibration=4.0).model_dump_json())

    found, otherwise = rescore(run, ["calibration=4"]), rescore(run, ["baseline=leave_one_out"])

    assert [change.best_changed for change in found.changes] == [1.0, 1.0, 0.0, 0.0, 0.5]
    assert [change.reward[0] == change.reward[1] for change in found.changes] == [False, False, True, True, False]
    assert all(change.reward[0] == change.reward[1] for change in otherwise.changes)
    before, after, *_ = rescore_table(found).splitlines()
    mixes = [f"correctness 1, calibration {weight}, format 1" for weight in (1, 4)]
    assert before == f"before: {mixes[0]} (steps 1 to 2); {mixes[1]} (from step 3 on); credit joint, baseline mean"
    assert after == f"after:  {mixes[1]}; credit joint, baseline mean"


def test_what_the_changed_mix_makes_unsafe_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path, group(0, BOLD, MEEK), overrides=JOINT)

    codes = [main(["rescore", str(run.path), f"calibration={weight}"]) for weight in (0.5, 2)]

    assert codes == [0, 0]
    assert capsys.readouterr().err.count("UNSAFE: Below p = 0.500 it pays to answer wrong on purpose") == 1


def test_a_run_without_rollouts_is_named(tmp_path: Path) -> None:
    run = run_with(tmp_path)

    with pytest.raises(FileNotFoundError, match="holds no group of two scored responses"):
        rescore(run, ["calibration=1"])


def test_the_table_has_a_row_for_each_part_of_the_run_and_one_for_all(tmp_path: Path) -> None:
    run = run_with(tmp_path, *(group(number, BOLD, MEEK) for number in range(8)))

    table = rescore_table(rescore(run, ["calibration=0.5"]))

    assert "before: correctness 1, calibration 1, format 1; credit apart, baseline mean" in table
    assert [line.split()[0] for line in table.splitlines()[4:9]] == ["part"] * 4 + ["all"]
