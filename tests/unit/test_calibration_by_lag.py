"""Tests of cluster.calibration_by_lag and cluster.stated_sums."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.calibration_by_lag import CalibrationByLag, lag_row
from cluster.records import GroupRecord, SampleRecord
from cluster.stated_sums import StatedSums
from rewards.bins import calibration_error, equal_width_bins, noise_floor
from tests.unit.test_step_metrics import malformed, record, stated, unscored


def sampled(confidence: float, *, right: bool, answer: int, stated_under: int) -> SampleRecord:
    made = stated(confidence, right=right)
    return replace(made, answer_version=answer, confidence_version=stated_under)


def example() -> list[GroupRecord]:
    """To be trained on at version 7."""
    return [
        record(
            sampled(0.9, right=True, answer=7, stated_under=7),
            sampled(0.7, right=False, answer=7, stated_under=7),
            malformed(),
        ),
        record(sampled(0.6, right=True, answer=2, stated_under=4), unscored()),
    ]


def rows(table: str) -> dict[str, list[str]]:
    """The cells by name of the row; a name is followed by two spaces."""
    found = (line.strip().split("  ") for line in table.splitlines())
    return {name: " ".join(cells).split() for name, *cells in found}


def test_the_numbers_of_a_step_are_those_worked_out_by_hand() -> None:
    found = CalibrationByLag().step(example(), version=7)

    assert found == pytest.approx(
        {
            "lag/0/n": 2.0,
            "lag/0/accuracy": 1 / 2,
            "lag/0/confidence": 0.8,
            "lag/0/ece": (0.1 + 0.7) / 2,
            "lag/0/brier": (0.01 + 0.49) / 2,
            "lag/3-4/n": 1.0,
            "lag/3-4/accuracy": 1.0,
            "lag/3-4/confidence": 0.6,
            "lag/3-4/ece": 0.4,
            "lag/3-4/brier": 0.16,
            "lag/two_versions/n": 1.0,
            "lag/two_versions/accuracy": 1.0,
            "lag/two_versions/confidence": 0.6,
            "lag/two_versions/ece": 0.4,
            "lag/two_versions/brier": 0.16,
        }
    )


@pytest.mark.parametrize(
    ("row", "lags"), [("0", [0]), ("1", [1]), ("2", [2]), ("3-4", [3, 4]), ("5-8", [5, 6, 7, 8]), ("9-16", [9, 16])]
)
def test_lags_are_told_apart_where_they_are_small(row: str, lags: list[int]) -> None:
    assert [lag_row(lag) for lag in lags] == [row] * len(lags)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.05, 0.3, 0.7, 0.95, 1.0]), st.sampled_from([0.0, 0.25, 1.0])),
        min_size=1,
        max_size=40,
    )
)
def test_sums_say_what_the_responses_themselves_would(responses: list[tuple[float, float]]) -> None:
    sums = StatedSums()
    for one in responses:
        sums.add(*one)

    confidence, correct = np.array(responses).T
    bins = equal_width_bins(confidence, 10)
    assert sums.measured() == pytest.approx(
        {
            "n": len(responses),
            "accuracy": correct.mean(),
            "confidence": confidence.mean(),
            "ece": calibration_error(confidence, correct, bins),
            "brier": np.mean((confidence - correct) ** 2),
        }
    )
    assert sums.noise_floor() == pytest.approx(noise_floor(confidence, bins))


def test_the_table_is_of_the_whole_run_through_a_checkpoint_and_in_the_order_of_the_lags() -> None:
    first, second = CalibrationByLag(), CalibrationByLag()
    first.step(example(), version=7)

    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.step(example(), version=9)
    second.step([record(sampled(0.9, right=True, answer=0, stated_under=0))], version=9)

    found = rows(second.table())
    names = ["lag 0", "lag 2", "lag 3-4", "lag 5-8", "lag 9-16", "all", "two versions"]
    assert [name for name in found if name in names] == names
    assert found["lag 2"][:3] == ["2", "0.500", "0.800"]
    assert found["all"][0] == "7"
    assert found["two versions"][0] == "2"
    assert found["lag 9-16"][3] == "10.0"  # ECE, in points


def test_before_the_first_confidence_there_is_nothing_to_tell() -> None:
    by_lag = CalibrationByLag()

    assert by_lag.step([record(malformed(), unscored())], version=3) == {}
    assert "lag " not in by_lag.table().partition("What stage 3")[0]
