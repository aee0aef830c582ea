"""Trials: each one's recipe and folder, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.digests import training_digest
from cluster.run_folder import RunFolder
from cluster.sweep import read_sweep
from cluster.trials import Trial, bundles, give_up, hope_again, planned
from configs.load import RecipeError, load_recipe, write_resolved

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def plan(*overrides: str, stopping: bool = True) -> list[Trial]:
    return planned(DEMO, read_sweep(overrides), None, 0, stopping=stopping)


def test_a_trials_recipe_is_the_given_one_with_its_settings_and_a_folder_of_its_own(tmp_path: Path) -> None:
    output = f"output={tmp_path}/run"

    trials = plan(output, "rl.steps=7", "engine.workers_at_most=4", "rewards.weights.calibration=0.25,0.5")

    given = load_recipe(DEMO, [output, "rl.steps=7"])
    assert [trial.name for trial in trials] == ["calibration-0.25", "calibration-0.5"]
    assert [trial.recipe.rewards.weights.calibration for trial in trials] == [0.25, 0.5]
    assert [trial.run.path for trial in trials] == [tmp_path / "run" / "tune" / trial.name for trial in trials]
    assert {trial.recipe.rl for trial in trials} == {given.rl}
    assert trials[0].recipe.name == f"{given.name}-calibration-0.25"
    assert trials[0].recipe.engine.workers_at_most is None
    assert Path(trials[0].recipe.data.root).is_absolute()  # its process may work elsewhere


def test_a_trials_mirror_is_where_the_runs_own_has_the_trials_folder(tmp_path: Path) -> None:
    trial, _ = plan(f"output={tmp_path}/run", "seed=1,2", "mirror.address=memory://bucket/run/")

    assert trial.recipe.mirror.address == "memory://bucket/run/tune/seed-1"


def test_a_trial_is_what_its_file_says(tmp_path: Path) -> None:
    trial, _ = plan(f"output={tmp_path}", "seed=1,2")

    write_resolved(trial.recipe, trial.run.recipe)

    assert load_recipe(trial.run.recipe) == trial.recipe


def test_a_trial_starts_from_the_runs_own_stage_2(tmp_path: Path) -> None:
    trial, _ = plan(f"output={tmp_path}/run", "seed=1,2")
    start = RunFolder(tmp_path / "run")
    for number in (1, 2, 3):
        start.stage(number).model.mkdir(parents=True)

    trial.link(start)
    trial.link(start)  # as the same command does, given again
    (tmp_path / "run").rename(tmp_path / "moved")

    moved = RunFolder(tmp_path / "moved" / "tune" / trial.name)
    assert moved.stage(2).model.resolve() == (tmp_path / "moved" / "stage2" / "model").resolve()
    assert not moved.stage(3).path.exists()


def test_only_the_settings_of_a_trial_say_whether_it_has_ended(tmp_path: Path) -> None:
    one, other = plan(f"output={tmp_path}", "seed=1,2")
    for trial in (one, other):
        trial.run.stage(3).path.mkdir(parents=True)

    give_up(one.recipe)

    assert [one.given_up, other.given_up, one.finished] == [True, False, False]
    longer, _ = plan(f"output={tmp_path}", "seed=1,2", "rl.steps=9999")
    assert longer.run == one.run
    assert not longer.given_up
    assert training_digest(longer.recipe, 3) != training_digest(one.recipe, 3)
    hope_again(one.recipe)
    hope_again(other.recipe)
    assert not one.given_up


def test_every_actor_of_stage_3_has_a_bundle() -> None:
    recipe = load_recipe(
        DEMO,
        [
            "learner={ranks: 2, cpus_per_rank: 0.5, gpus_per_rank: 1}",
            "engine={workers: 1, cpus_per_worker: 0, gpus_per_worker: 1}",
            "reward_service={workers: 2, cpus_per_worker: 0}",
        ],
    )

    assert bundles(recipe) == [{"CPU": 0.5, "GPU": 1}, {"CPU": 0.5, "GPU": 1}, {"CPU": 0, "GPU": 1}]


def test_every_trial_is_checked_before_any_begins(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"override: rewards.weights.calibration: got '-1'"):
        plan("rewards.weights.calibration=0.5,-1")
    with pytest.raises(ValueError, match=r"trial samples_per_prompt-8_minibatches-999 cannot work: rl.minibatches"):
        plan("rl.samples_per_prompt=8,16", "rl.minibatches=1,999")
    with pytest.raises(ValueError, match=r"(?s)trial credit-joint: .*wrong on purpose"):
        plan("rewards.credit=apart,joint", "rewards.weights.calibration=50")


def test_values_that_make_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two trials would be called seed-_1_: write their values so"):
        plan("seed='1',\"1\"")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("rewards.correctness=exact,numeric", "correctness-exact and correctness-numeric differ in what is right"),
        ("rewards.reference=label,annotator", "differ in how their accuracy in training is measured .* --run-all"),
        ("rl.temperature=0.9,1", "differ in how their accuracy in training is measured"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(override: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        plan(override)


def test_what_is_only_measured_otherwise_in_training_can_be_tried_where_none_is_stopped() -> None:
    assert len(plan("rewards.reference=label,annotator", stopping=False)) == 2
