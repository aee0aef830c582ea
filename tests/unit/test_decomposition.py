from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.bins import equal_width_bins
from rewards.decomposition import decompose

STATED = st.integers(0, 20).map(lambda twentieths: twentieths / 20)


def test_the_parts_equal_their_values_by_hand() -> None:
    confidence = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    correct = np.array([True, False, False, False, True, True])

    parts = decompose(confidence, correct)

    # right at .2: 1/4, at .9: 1, of all: 1/2
    assert parts.reliability == pytest.approx((4 * 0.05**2 + 2 * 0.1**2) / 6)
    assert parts.resolution == pytest.approx((4 * 0.25**2 + 2 * 0.5**2) / 6)
    assert parts.uncertainty == pytest.approx(0.25)


@given(st.lists(st.tuples(STATED | st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_the_parts_of_stated_values_sum_up_to_the_brier_score(pairs: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([c for c, _ in pairs]), np.array([right for _, right in pairs])

    parts = decompose(confidence, correct)

    brier = np.mean((confidence - correct) ** 2)
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(brier, abs=1e-12)


def test_a_constant_resolves_nothing() -> None:
    parts = decompose(np.full(4, 0.6), np.array([True, False, False, False]))

    assert parts.resolution == 0.0
    assert parts.reliability == pytest.approx(0.35**2)


def test_over_bins_the_mean_confidence_of_a_bin_stands_for_those_in_it() -> None:
    confidence = np.array([0.11, 0.19, 0.8, 0.9])
    correct = np.array([False, True, True, True])

    parts = decompose(confidence, correct, equal_width_bins(confidence, 2))

    assert parts.reliability == pytest.approx((0.35**2 + 0.15**2) / 2)
    assert parts.resolution == pytest.approx(0.25**2)


def test_empty_bins_have_no_part() -> None:
    confidence, correct = np.array([0.1, 0.9]), np.array([False, True])

    assert decompose(confidence, correct, equal_width_bins(confidence, 10)) == decompose(confidence, correct)
