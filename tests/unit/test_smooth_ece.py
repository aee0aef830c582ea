from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rewards.bins import calibration_error, equal_width_bins
from rewards.smooth_ece import smooth_ece

CONFIDENCE = st.floats(0, 1) | st.integers(0, 100).map(lambda percent: percent / 100)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([c for c, _ in pairs]), np.array([right for _, right in pairs])


def directly(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Smooth ECE by its definition: a sum of Gaussians and their mirror images at every point of a grid."""
    points = (np.arange(2000) + 0.5) / 2000
    mirrored = [sign * confidence + 2 * turn for turn in range(-3, 4) for sign in (1, -1)]

    def error(bandwidth: float) -> float:
        kernel = sum(np.exp(-(((points[:, None] - image) / bandwidth) ** 2) / 2) for image in mirrored)
        kernel = kernel / (bandwidth * np.sqrt(2 * np.pi))
        return float(np.abs((kernel * (confidence - correct)).mean(axis=1)).mean())

    low, high = 0.002, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return high


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=15))
def test_smooth_ece_is_that_of_its_definition(pairs: list[tuple[float, bool]]) -> None:
    confidence, correct = arrays(pairs)

    assert smooth_ece(confidence, correct) == pytest.approx(directly(confidence, correct), abs=3e-3)


@pytest.mark.parametrize("stated", [0.0, 0.07, 0.3333, 0.5, 1.0])
def test_of_one_stated_value_it_is_the_distance_to_the_share_that_is_right(stated: float) -> None:
    correct = np.array([True, False, False, False])

    assert smooth_ece(np.full(4, stated), correct) == pytest.approx(abs(stated - 0.25), abs=1e-5)


def test_values_that_are_right_as_often_as_they_say_have_none() -> None:
    confidence = np.array([0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.0, 1.0])
    correct = np.array([True, False, True, True, True, False, False, True])

    assert smooth_ece(confidence, correct) == pytest.approx(0.0, abs=1e-5)


def test_a_hairs_breadth_does_not_make_an_error_as_it_does_over_bins() -> None:
    confidence, correct = np.repeat([0.499, 0.501], 50), np.repeat([True, False], 50)

    assert calibration_error(confidence, correct, equal_width_bins(confidence, 10)) == pytest.approx(0.5, abs=0.01)
    assert 0.01 < smooth_ece(confidence, correct) < 0.03


@given(st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=30))
def test_it_lies_between_the_mean_gap_and_the_error_of_each_value_by_itself(pairs: list[tuple[float, bool]]) -> None:
    confidence, correct = arrays(pairs)
    values = np.unique(confidence, return_inverse=True)[1]

    found = smooth_ece(confidence, correct)

    assert abs(np.mean(confidence - correct)) - 1e-4 <= found <= calibration_error(confidence, correct, values) + 1e-4
