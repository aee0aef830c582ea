from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.selective import accuracy_at_coverage, aurc, coverage_at_risk, excess_aurc, risk_by_coverage
from rewards.tally import Tally, tally

FEW_VALUES = st.sampled_from([0.1, 0.5, 0.9])
RESPONSES = st.lists(st.tuples(FEW_VALUES, st.booleans()), min_size=1, max_size=6)


def counted(*pairs: tuple[float, bool]) -> Tally:
    return tally(np.array([c for c, _ in pairs]), np.array([right for _, right in pairs]))


def area(right: tuple[bool, ...]) -> float:
    """AURC of answers in this order, by the definition."""
    return float(np.mean([1 - np.mean(right[:kept]) for kept in range(1, len(right) + 1)]))


def test_a_tally_counts_each_value_once_from_the_lowest() -> None:
    found = counted((0.9, True), (0.2, False), (0.9, False), (0.9, True))

    assert found.values.tolist() == [0.2, 0.9]
    assert (found.right.tolist(), found.wrong.tolist()) == ([0, 2], [1, 1])


def test_aurc_equals_its_value_by_hand() -> None:
    found = counted((0.7, True), (0.9, True), (0.8, False))

    assert aurc(found) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert excess_aurc(found) == pytest.approx((1 / 2 - 0) / 3)  # the best order has risks 0, 0, 1/3


@settings(deadline=None, max_examples=40)
@given(RESPONSES)
def test_aurc_is_the_mean_over_all_orders_of_the_tied(pairs: list[tuple[float, bool]]) -> None:
    orders = [order for order in permutations(pairs) if list(order) == sorted(order, key=lambda one: -one[0])]
    by_definition = np.mean([area(tuple(right for _, right in order)) for order in orders])

    assert aurc(counted(*pairs)) == pytest.approx(by_definition)


@given(RESPONSES)
def test_excess_aurc_is_above_the_best_order_of_the_same_answers(pairs: list[tuple[float, bool]]) -> None:
    found = counted(*pairs)

    best = area(tuple(sorted((right for _, right in pairs), reverse=True)))

    assert excess_aurc(found) == pytest.approx(aurc(found) - best, abs=1e-12)


def test_a_perfect_order_has_no_excess_and_a_constant_confidence_has_the_error_rate() -> None:
    assert excess_aurc(counted((0.9, True), (0.8, True), (0.1, False))) == 0.0
    assert aurc(counted((0.5, True), (0.5, False), (0.5, False), (0.5, False))) == pytest.approx(0.75)


def test_each_row_of_counts_has_its_own_curve() -> None:
    values = np.array([0.2, 0.9])
    together = Tally(values, np.array([[0.0, 2.0], [3.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 4.0]]))

    for of in (aurc, excess_aurc):
        apart = [float(of(Tally(values, together.right[row], together.wrong[row]))) for row in (0, 1)]
        assert of(together).tolist() == pytest.approx(apart)


def test_nothing_counted_has_no_curve() -> None:
    empty = Tally(np.array([0.2]), np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))

    assert aurc(empty).tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)


@pytest.mark.parametrize(
    "risk, coverage",
    [(0.0, 0.2), (0.24, 0.2), (0.25, 0.8), (0.5, 1.0)],  # thresholds keep 2, 8 or 10 of 10 with 0, 2 or 4 wrong
)
def test_coverage_at_risk_is_the_most_that_a_threshold_can_keep(risk: float, coverage: float) -> None:
    low, middle, high = [(0.1, False)] * 2, [(0.5, False)] * 2 + [(0.5, True)] * 4, [(0.9, True)] * 2

    assert coverage_at_risk(counted(*low, *middle, *high), risk) == pytest.approx(coverage)


def test_a_threshold_may_keep_more_at_less_risk() -> None:
    found = counted((0.9, False), *[(0.8, True)] * 9)

    assert coverage_at_risk(found, 0.1) == 1.0


def test_where_every_threshold_keeps_too_much_risk_nothing_is_kept() -> None:
    assert coverage_at_risk(counted((0.9, False), (0.5, True)), 0.2) == 0.0


def test_a_threshold_keeps_whole_confidences_the_surest_first() -> None:
    found = tally(np.array([0.9, 0.9, 0.5, 0.2]), np.array([True, False, True, False]))

    coverage, risk = risk_by_coverage(found)

    assert coverage.tolist() == [0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])


@settings(deadline=None, max_examples=40)
@given(RESPONSES, st.integers(1, 6))
def test_accuracy_at_a_coverage_is_the_mean_over_all_orders_of_the_tied(
    pairs: list[tuple[float, bool]], kept: int
) -> None:
    kept = min(kept, len(pairs))
    orders = [order for order in permutations(pairs) if list(order) == sorted(order, key=lambda one: -one[0])]
    by_definition = np.mean([np.mean([right for _, right in order[:kept]]) for order in orders])

    assert accuracy_at_coverage(counted(*pairs), kept / len(pairs)) == pytest.approx(by_definition)


def test_accuracy_at_a_coverage_of_each_row_of_counts_is_its_own() -> None:
    counts = Tally(np.array([0.2, 0.9]), np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [0.0, 0.0]]))

    assert accuracy_at_coverage(counts, 0.5).tolist() == pytest.approx([0.75, np.nan], nan_ok=True)
