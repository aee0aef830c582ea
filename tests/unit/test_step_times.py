"""The arithmetic of `benchmarks.overlap` and `benchmarks.step_cost`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.real_run import recipe_for
from benchmarks.step_cost import cost
from benchmarks.step_times import Steps, balanced, divisors, seconds_per_step, standstill


def line(seconds: float, *, rolled: float, idle: float, learner_rate: float, learning: float) -> dict[str, float]:
    return {
        "step_seconds": seconds,
        "rollout_tokens_per_second": rolled / seconds,
        "rollout_wait_seconds": idle,
        "learner_tokens_per_second": learner_rate,
        "learner_seconds": learning,
    }


def test_rates_are_of_the_time_in_which_each_part_had_work() -> None:
    steps = Steps(
        [
            line(4.0, rolled=100, idle=1.0, learner_rate=50, learning=2.0),
            line(6.0, rolled=300, idle=3.0, learner_rate=80, learning=1.0),
        ]
    )

    assert steps.seconds == 5.0
    assert steps.rollout_rate == pytest.approx(400 / 6)  # 400 tokens in 10 seconds, 4 of them without a request
    assert steps.learner_rate == pytest.approx((100 + 80) / 3)


def test_a_loop_is_timed_from_one_steps_last_group_to_another_steps() -> None:
    filling, even, emptying = [5.0, 9.0], [10.0, 11.0, 12.0, 13.0], [20.0, 40.0]

    found = seconds_per_step([*filling, *even, *emptying], groups_per_step=2, warm_up=1, steps=2)

    assert found == (13.0 - 9.0) / 2


def test_balance_is_where_generation_is_the_slower_part_by_least() -> None:
    generation = {2: 8.0, 8: 2.0}  # seconds go as one over the sequences at once

    assert balanced(generation, training=3.9, candidates=divisors(16)) == 4
    assert balanced(generation, training=4.1, candidates=divisors(16)) == 2
    assert balanced(generation, training=9.0, candidates=[3, 4, 8]) == 3  # none is slow enough


def test_a_pause_is_what_gaps_under_an_update_take_beyond_the_usual() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 4.5, 9.5, 9.5, 10.5, 11.5]  # two tokens at once: the reader was held up too

    longest, lost = standstill(times, begun=3.5, ended=10.0)

    assert longest == 4.0
    assert lost == pytest.approx((4.5 - 3.0 - 1) + (9.5 - 4.5 - 1) + (0.0 - 1) + (10.5 - 9.5 - 1))


def test_the_cost_of_a_step_is_that_of_two_that_may_come_at_once(tmp_path: Path) -> None:
    lines = [
        {**line(seconds, rolled=0, idle=0, learner_rate=50, learning=1.0), "update_seconds": 0.5} for seconds in (1, 3)
    ]
    recipe = recipe_for(tmp_path, "run")

    step, _, token, rate, *_ = cost("x", recipe, Steps(lines * 3))

    tokens = 10 * 6 * 48
    assert (step.lowest, step.median, step.highest) == (2.0, 2.0, 2.0)
    assert token.median == 1000 * 2.0 / tokens
    assert rate.median == tokens / 2.0


def test_divisors_ascend_and_leave_nothing_over() -> None:
    assert divisors(60) == [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60]
