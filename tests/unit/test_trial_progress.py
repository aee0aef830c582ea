"""What a trial tells Ray Tune of its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.trial_progress import SCORE, WINDOW, progress, read_lines


def line(
    accuracy: float | None, brier: float | None, malformed: float = 0.0, reward: float = 1.0
) -> dict[str, float | None]:
    return {"reward": reward, "accuracy": accuracy, "brier": brier, "malformed": malformed}


def test_the_score_is_the_mean_over_responses_of_being_right_less_the_squared_error() -> None:
    # Of four responses: right with 0.9, right with 0.6, wrong with 0.3, malformed.
    found = progress([line(accuracy=0.5, brier=(0.01 + 0.16 + 0.09) / 3, malformed=0.25)])

    assert found[SCORE] == pytest.approx(((1 - 0.01) + (1 - 0.16) + (0 - 0.09) + 0) / 4)


def test_the_score_does_not_pay_for_being_wrong_on_purpose_and_saying_so() -> None:
    sabotage, honest = progress([line(accuracy=0, brier=0)]), progress([line(accuracy=0.6, brier=0.24)])

    assert sabotage["brier"] < honest["brier"]
    assert sabotage[SCORE] < honest[SCORE]


def test_the_score_does_not_hang_on_the_reward() -> None:
    assert progress([line(0.5, 0.2, reward=1)])[SCORE] == progress([line(0.5, 0.2, reward=100)])[SCORE]


def test_the_last_steps_alone_count() -> None:
    lines = [line(0, 1)] * 5 + [line(1, 0)] * WINDOW

    assert progress(lines) == {"reward": 1, "accuracy": 1, "brier": 0, SCORE: 1}


def test_what_is_undefined_in_a_step_is_left_out() -> None:
    nothing_scored: dict[str, float | None] = {"reward": None, "accuracy": None}

    assert progress([nothing_scored]) == {}
    assert progress([nothing_scored, line(0.5, None)]) == {"reward": 1, "accuracy": 0.5, SCORE: 0.5}
    assert progress([]) == {}


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_lines(log) == []

    log.write_text('{"step": 1, "accuracy": 0.5}\n{"step": 2, "accu')

    assert read_lines(log) == [{"step": 1, "accuracy": 0.5}]
