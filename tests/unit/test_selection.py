"""Tests of cluster.selection: groups by hand, on a clock by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.records import GroupRecord
from cluster.selection import Selection
from configs.schema import Rewards, RewardWeights
from tests.unit.test_step_metrics import malformed, record, stated

WEIGHTS = RewardWeights(correctness=1.0, calibration=0.0, format=0.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def group(group_id: int, *, right: bool = True, tokens: int = 10, seconds: float = 1.0) -> GroupRecord:
    """Two responses, one of them malformed and wrong."""
    made = record(stated(0.75, right=right, tokens=tokens), malformed(tokens=tokens))
    return replace(made, group_id=group_id, generation_seconds=seconds)


def told(selection: Selection, version: int = 0) -> dict[str, float | None]:
    """What is not 0."""
    return {name: value for name, value in selection.read(version, WEIGHTS, Rewards()).items() if value != 0.0}


def test_what_a_batch_passes_over_is_told_by_how_long_it_has_run() -> None:
    selection, clock = Selection(clock := Clock()), clock
    for group_id, (second, version) in enumerate([(0.0, 3), (2.0, 4), (6.0, 5)]):
        clock.now = second
        selection.started(group_id, version)
    selection.ended(group(1))
    clock.now = 10.0

    selection.taken(version=5)
    clock.now = 100.0  # the step takes its time, which is none that the batch was chosen by

    assert told(selection) == {
        "running/groups": 2.0,
        "running/seconds": (10.0 + 4.0) / 2,
        "running/lag_mean": (2 + 0) / 2,
        "running/lag_max": 2.0,
    }


def test_groups_that_a_batch_had_to_do_without_are_told_once_when_they_end() -> None:
    selection = Selection(Clock())
    for group_id in range(4):
        selection.started(group_id, 0)
    selection.ended(group(0))  # in time
    selection.taken(version=0)
    selection.ended(group(1, right=True, tokens=30, seconds=5.0))
    selection.ended(group(2, right=False, tokens=50, seconds=7.0))

    found, later = told(selection), told(selection)

    late = {name: value for name, value in found.items() if name.startswith("finished_late/")}
    assert late == pytest.approx(
        {
            "finished_late/groups": 2.0,
            "finished_late/accuracy": 1 / 4,  # malformed is wrong
            "finished_late/confidence": 0.75,
            "finished_late/malformed": 2 / 4,
            "finished_late/response_tokens": 40.0,
            "finished_late/generation_seconds": 6.0,
            "finished_late/reward": 1 / 4,
        }
    )
    assert not [name for name in later if name.startswith("finished_late/")]


def test_of_drops_there_is_told_what_is_known() -> None:
    selection, clock = Selection(clock := Clock()), clock
    for group_id in range(3):
        selection.started(group_id, 1)
    selection.ended(group(0))
    selection.dropped(group(0, right=False, tokens=20))
    clock.now = 8.0
    selection.gave_up(1, version=3)
    clock.now = 12.0
    selection.gave_up(2, version=4)

    found = told(selection)

    assert found["dropped_complete/groups"] == 1.0
    assert found["dropped_complete/response_tokens"] == 20.0
    assert "dropped_complete/accuracy" not in found  # 0
    assert found["dropped_unfinished/groups"] == 2.0
    assert found["dropped_unfinished/seconds"] == 10.0
    assert (found["dropped_unfinished/lag_mean"], found["dropped_unfinished/lag_max"]) == (2.5, 3.0)
    assert told(selection) == {}


def test_a_batch_that_is_held_back_is_told_by_the_time_from_when_it_was_full() -> None:
    selection, clock = Selection(clock := Clock()), clock
    for second, groups in ((3.0, 2), (4.0, 3), (5.0, 1)):
        clock.now = second
        selection.held_back(groups)
    clock.now = 9.0
    selection.taken(version=2)

    assert told(selection) == {"stale_wait_seconds": 6.0, "stale_wait_groups": 3.0}

    clock.now = 20.0
    selection.taken(version=3)  # full and ready at once
    assert told(selection) == {}
