from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.gate import AdmissionGate


@given(st.integers(1, 64), st.integers(0, 8), st.integers(0, 1000))
def test_room_is_the_bound_on_staleness_less_what_was_admitted(size: int, lag: int, version: int) -> None:
    gate = AdmissionGate(size, lag)

    assert gate.room(version) == (lag + version + 1) * size
    gate.admit(size)
    assert gate.room(version) == (lag + version) * size


def test_each_confirmed_version_makes_room_for_one_batch() -> None:
    gate = AdmissionGate(groups_per_step=4, max_policy_lag=0)
    gate.admit(4)

    assert gate.room(0) == 0
    assert gate.room(1) == 4


def test_room_is_never_negative() -> None:
    before = AdmissionGate(groups_per_step=4, max_policy_lag=3)
    before.admit(16)
    resumed_with_less_lag = AdmissionGate(groups_per_step=4, max_policy_lag=0)
    resumed_with_less_lag.load_state_dict(before.state_dict())

    assert resumed_with_less_lag.room(0) == 0


def test_a_dropped_group_gives_its_place_back() -> None:
    gate = AdmissionGate(groups_per_step=2, max_policy_lag=0)
    gate.admit(2)
    gate.drop()

    assert gate.room(0) == 1
    assert gate.admitted == 1


def test_no_group_is_admitted_that_no_step_will_train() -> None:
    gate = AdmissionGate(groups_per_step=2, max_policy_lag=4, steps=3)

    assert gate.room(0) == 6
    gate.admit(6)
    assert gate.room(2) == 0


def test_a_gate_goes_on_where_its_state_was_taken() -> None:
    gate = AdmissionGate(2, 1)
    gate.admit(3)
    again = AdmissionGate(2, 1)
    again.load_state_dict(gate.state_dict())

    assert again.room(0) == 1


@pytest.mark.parametrize(
    "state", [{}, {"admitted": 1, "more": 2}, {"admitted": -1}, {"admitted": 1.0}, {"admitted": True}]
)
def test_a_state_that_is_not_a_gates_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="admission gate"):
        AdmissionGate(2, 1).load_state_dict(state)  # type: ignore[arg-type]


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="groups_per_step=0"):
        AdmissionGate(0, 1)
    with pytest.raises(ValueError, match="max_policy_lag=-1"):
        AdmissionGate(1, -1)
    with pytest.raises(ValueError, match="0 groups to admit"):
        AdmissionGate(1, 1).admit(0)
    with pytest.raises(ValueError, match="1 groups to drop"):
        AdmissionGate(1, 1).drop()
