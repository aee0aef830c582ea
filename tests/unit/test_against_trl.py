"""The arithmetic of the benchmark against TRL, and that both of its sides give the same rewards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.against_trl import Figure, figures
from benchmarks.against_trl_setting import WORDS
from benchmarks.against_trl_sides import OVERRIDES, TRL, WARM_UP_STEPS, Turn, Way, turn_of
from benchmarks.trl_side import worth
from configs.choices import Credit, Preset, Reading
from configs.derive import problems
from configs.load import load_recipe
from configs.response import Response
from configs.schema import Rewards
from rewards.correctness import is_correct
from rewards.mixing import combine
from rewards.parts import PARTS, Truth, judge, score
from rewards.safety import unsafe


def test_a_side_is_compared_with_the_turn_that_trl_took_in_the_same_repeat() -> None:
    repeats = [
        [Turn(TRL, [32.0], 48.0, 0.0), Turn("ours", [8.0, 8.0], 48.0, 0.5)],  # 2 and 8 samples a second
        [Turn("ours", [16.0], 47.0, 1.0), Turn(TRL, [64.0, 64.0], 48.0, 0.0)],  # 4 and 1
        [Turn(TRL, [16.0], 48.0, 0.0), Turn("ours", [8.0], 49.0, 0.0)],  # 4 and 8
    ]

    trl, ours = figures(repeats)

    assert trl == Figure(TRL, 2.0, 1.0, 4.0, 1.0, 1.0, 1.0, 48.0, 0.0)
    assert ours == Figure("ours", 8.0, 4.0, 8.0, 4.0, 2.0, 4.0, 48.0, 0.5)


def test_neither_the_warm_up_counts_nor_the_last_step_which_has_nothing_to_overlap_with() -> None:
    seconds = [*([100.0] * WARM_UP_STEPS), 2.0, 4.0, 1.0]
    lines = [json.dumps({"step_seconds": s, "response_tokens": s * 10, "reward": s}) for s in seconds]

    turn = turn_of("ours", lines, 2)

    assert turn == Turn("ours", [2.0, 4.0], 30.0, 3.0)
    with pytest.raises(ValueError, match=r"has 5 steps, expected 6"):
        turn_of("ours", lines, 3)


def test_the_recipe_it_runs_can_work() -> None:
    recipe = load_recipe(WORDS, [f"{name}={value}" for name, value in OVERRIDES.items()])

    assert problems(recipe) == []
    assert unsafe(recipe.rewards) == []


def test_a_way_is_read_as_it_is_written() -> None:
    assert Way.read("sdpa:16") == Way("sdpa", 16)


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("<think>joy</think><answer>positive</answer><confidence>0.8</confidence>", 2.0),
        ("Sure! <answer> Positive. </answer><confidence> .5 </confidence> <think>joy</think> and on it goes", 2.0),
        ("<think>joy</think><answer>neutral</answer><confidence>0.8</confidence>", 1.0),
        ("<think>joy</think><answer>positivé</answer><confidence>0.8</confidence>", 1.0),
        ("<think>joy</think><answer>very positive</answer><confidence>0.8</confidence>", 1.0),
        ("<think>joy</think><answer>positive</answer><confidence>1.0</confidence>", 0.0),
        ("<think>joy</think><answer>positive</answer><confidence>high</confidence>", 0.0),
        ("<think>joy</think><answer>positive</answer><confidence>0.8", 0.0),
        ("positive", 0.0),
    ],
)
def test_both_sides_give_a_response_the_same_reward(response: str, reward: float) -> None:
    rewards = Rewards.model_validate({"preset": Preset.RLVR, "reading": Reading.EMOCALIBER})
    truth = Truth("positive", ("negative", "neutral", "positive"), {})

    judged = judge(response, truth, Response(reasoning_elements=()), rewards, is_correct, truncated=True)
    (scored,) = score([judged], rewards)
    parts = {name: np.array([scored.parts[name]]) for name in PARTS}
    mixed = combine(parts, np.array([scored.target is not None]), rewards.weights, Credit.JOINT)

    assert worth(response, "positive") == reward
    assert mixed.total.tolist() == [reward]
