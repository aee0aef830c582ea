from __future__ import annotations

import pytest

from cluster.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    """A breaker whose second failure in a row was just now."""
    breaker = CircuitBreaker("the judge", 2, 30.0, clock)
    for _ in range(2):
        assert breaker.lets_through()
        breaker.failed("no answer")
    return breaker


def test_failures_open_it_only_if_they_are_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker("the judge", 2, 30.0, Clock())

    for _ in range(3):
        breaker.failed("no answer")
        breaker.succeeded()

    assert breaker.lets_through()
    assert caplog.text == ""


def test_an_open_one_lets_nothing_through_until_its_time_is_over_and_then_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    breaker = opened(clock)

    clock.now += 29.9
    assert not breaker.lets_through()
    clock.now += 0.1
    assert [breaker.lets_through() for _ in range(3)] == [True, False, False]

    assert "the judge failed 2 times in a row" in caplog.text
    assert "no answer" in caplog.text


def test_a_trial_that_fails_keeps_it_open_for_as_long_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    assert breaker.lets_through()
    clock.now += 5

    breaker.failed("no answer")

    clock.now += 29.9
    assert not breaker.lets_through()
    clock.now += 0.1
    assert breaker.lets_through()


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    assert breaker.lets_through()

    clock.now += 30

    assert breaker.lets_through()


def test_a_success_closes_it_and_forgets_the_failures_before(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    assert breaker.lets_through()

    breaker.succeeded()

    assert "the judge works again" in caplog.text
    breaker.failed("no answer")
    assert all(breaker.lets_through() for _ in range(3))
