from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.shown_groups import shown_group
from configs.schema import Rewards, RewardWeights
from rollout.trajectory import Group, Score, Trajectory
from tests.unit.groups import example_group, example_sample

REWARDS = Rewards()
WEIGHTS = RewardWeights(correctness=1.0, calibration=2.0, format=0.5)


def response(answer: str | None, confidence: float | None, correct: float, malformed: str | None = None) -> Trajectory:
    parts = {"correctness": correct, "calibration": -0.25, "format": float(malformed is None)}
    return Trajectory(example_sample(), Score(answer, confidence, malformed, correct, None, parts, None, None, None))


def group(*trajectories: Trajectory, prompt_id: str = "sun-3", target: str | None = "positive") -> Group:
    return replace(example_group(), prompt_id=prompt_id, target=target, trajectories=trajectories)


def shown(one: Group) -> str:
    return shown_group(one, 12, WEIGHTS, REWARDS)


def test_a_line_has_what_was_asked_what_was_answered_and_what_it_was_worth() -> None:
    right, wrong = response("positive", 0.8, 1.0), response("neutral", 0.3, 0.0)

    line = shown(group(right, wrong, response(None, None, 0.0, "missing_tag"), Trajectory(example_sample(), None, "x")))

    assert line == (
        "step 12, sun-3 (positive): positive 0.80 = +1.00, neutral 0.30 = +0.00, missing_tag = -0.50, no score"
    )


def test_responses_that_say_and_are_worth_the_same_are_counted_and_the_most_frequent_come_first() -> None:
    line = shown(group(response("a", 0.3, 0.0), response("b", 0.8, 1.0), response("b", 0.8, 1.0)))

    assert line.endswith(": 2x b 0.80 = +1.00, a 0.30 = +0.00")


def test_a_large_group_of_all_different_responses_is_cut() -> None:
    line = shown(group(*(response(f"answer {n}", 0.5, 0.0) for n in range(64))))

    assert line.endswith("answer 7 0.50 = +0.00, 56 others")


def test_a_group_without_a_score_or_a_reference_says_so() -> None:
    unscored = Trajectory(example_sample(), None, "the scorer died")

    assert shown(group(unscored, unscored, target=None)) == "step 12, sun-3 (no reference): 2x no score"


@given(st.text(), st.text(), st.text())
def test_whatever_a_model_says_it_is_one_short_line_that_a_terminal_prints_as_it_is(
    prompt_id: str, target: str, answer: str
) -> None:
    line = shown(group(response(answer, 0.5, 1.0), prompt_id=prompt_id, target=target))

    assert line.isprintable()
    assert len(line) < 130
