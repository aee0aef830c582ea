"""Which trials are given up, by Ray's own rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.digests import evaluation_digest, training_digest
from cluster.median_rule import MedianRule
from cluster.sweep import read_sweep
from cluster.trial_progress import SCORE, WINDOW
from cluster.trials import Trial, planned
from configs.load import write_resolved

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
STEPS = 48
GRACE = STEPS // 4


@dataclass(eq=False)
class Told:
    """A trial as Tune has it."""

    config: dict[str, str]
    trial_id: str = ""
    answers: set[str] = field(default_factory=set)


class Controller:
    def get_live_trials(self) -> list[object]:
        return [type("Waiting", (), {"status": "PENDING"})]


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    sweep = read_sweep([f"output={tmp_path}", "seed=1,2,3,4", f"rl.steps={STEPS}"])
    found = planned(DEMO, sweep, None, 0, stopping=True)
    for trial in found:
        write_resolved(trial.recipe, trial.run.recipe)
        trial.run.stage(3).path.mkdir()
    return found


def tell(rule: MedianRule, trial: Trial, score: float, steps: int) -> int:
    """The step at which a trial of constant score is given up; 0 for one that gets to `steps`."""
    told = Told({"recipe": str(trial.run.recipe)}, trial.name)
    for step in range(1, steps + 1):
        result = {"training_iteration": step, SCORE: score}
        assert rule.on_trial_result(Controller(), told, result) == "CONTINUE"  # it ends by itself
        if trial.given_up:
            return step
    return 0


def test_a_trial_below_the_median_of_three_others_is_given_up_after_its_grace(trials: list[Trial]) -> None:
    rule = MedianRule(STEPS)

    ends = [tell(rule, trial, score, STEPS) for trial, score in zip(trials, (0.2, 0.3, 0.5, 0.29), strict=True)]

    assert ends == [0, 0, 0, GRACE]


def test_a_trial_at_the_median_goes_on(trials: list[Trial]) -> None:
    rule = MedianRule(STEPS)

    assert [tell(rule, trial, 0.25, STEPS) for trial in trials] == [0, 0, 0, 0]


def test_two_others_are_too_few_to_give_up_the_worst_or_to_pause_it(trials: list[Trial]) -> None:
    rule = MedianRule(STEPS)

    assert [tell(rule, trial, score, STEPS) for trial, score in zip(trials[:3], (0.5, 0.4, -1), strict=True)] == [
        0,
        0,
        0,
    ]


def test_a_trial_that_is_finished_already_is_not_given_up_and_counts(trials: list[Trial]) -> None:
    rule = MedianRule(STEPS)
    for trial in trials[:3]:
        tell(rule, trial, 0.5, STEPS)
    stage, recipe = trials[3].run.stage(3), trials[3].recipe
    stage.finish("training", training_digest(recipe, 3))
    stage.finish("evaluation", evaluation_digest(recipe, 3))

    assert tell(rule, trials[3], 0.1, STEPS) == 0


def test_a_short_run_has_a_window_of_grace(trials: list[Trial]) -> None:
    rule = MedianRule(8)

    assert [tell(rule, trial, score, 40) for trial, score in zip(trials, (0.5, 0.5, 0.5, 0.1), strict=True)][
        3
    ] == WINDOW
