from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.choices import StaleGroups
from learner.buffer import Buffer, Entry


def entry(group_id: int, oldest_version: int) -> Entry[str]:
    return Entry(group_id, oldest_version, tokens=10, payload=f"reference-{group_id}")


def buffer_with(
    size: int,
    lag: int,
    *,
    ready: dict[int, int] | None = None,
    running: dict[int, int] | None = None,
    stale_groups: StaleGroups = StaleGroups.WAIT,
) -> Buffer[str]:
    """Groups by id with the version of their oldest token, or of their start."""
    buffer: Buffer[str] = Buffer(size, lag, stale_groups)
    for group_id, version in (running or {}).items():
        buffer.started(group_id, version)
    for group_id, version in (ready or {}).items():
        buffer.started(group_id, version)
        buffer.add(entry(group_id, version))
    return buffer


def taken(buffer: Buffer[str], version: int) -> list[int] | None:
    batch = buffer.take(version)
    return None if batch is None else [one.group_id for one in batch]


def test_a_batch_is_not_ready_before_it_is_full() -> None:
    buffer = buffer_with(2, 1, ready={0: 0}, running={1: 0})

    assert taken(buffer, 0) is None


def test_the_oldest_groups_are_taken_first_and_given_in_the_order_of_their_ids() -> None:
    buffer = buffer_with(2, 4, ready={1: 3, 2: 2, 3: 1, 0: 3})

    assert taken(buffer, 3) == [2, 3]
    assert taken(buffer, 4) == [0, 1]


def test_the_order_of_completion_does_not_matter() -> None:
    one = buffer_with(2, 4, ready={0: 1, 1: 1, 2: 1})
    other = buffer_with(2, 4, ready={2: 1, 1: 1, 0: 1})

    assert taken(one, 1) == taken(other, 1) == [0, 1]


def test_a_slow_group_is_passed_over_while_its_deadline_is_far() -> None:
    buffer = buffer_with(1, 1, ready={1: 0}, running={0: 0})

    assert taken(buffer, 0) == [1]


def test_a_running_group_that_is_due_is_waited_for() -> None:
    buffer = buffer_with(1, 1, ready={1: 1}, running={0: 0})

    assert taken(buffer, 1) is None
    buffer.add(entry(0, 0))
    assert taken(buffer, 1) == [0]


def test_a_running_group_is_waited_for_before_too_many_are_due_at_once() -> None:
    # One a step: 0 and 1 are both due at version 2, so one of the two must be trained at version 1.
    buffer = buffer_with(1, 2, ready={2: 1}, running={0: 0, 1: 0})

    assert taken(buffer, 1) is None
    buffer.add(entry(1, 0))
    assert taken(buffer, 1) == [1]


def test_who_holds_a_full_batch_back_is_named() -> None:
    # One a step: 0 and 1 are both due at version 2, and 3 is not due before 3.
    buffer = buffer_with(1, 2, ready={2: 1}, running={0: 0, 1: 0, 3: 1})

    assert buffer.awaited(1) == {0, 1}
    buffer.add(entry(1, 0))
    assert buffer.awaited(1) == frozenset()


def test_a_batch_that_lacks_groups_is_held_back_for_nobody() -> None:
    assert buffer_with(2, 1, ready={1: 1}, running={0: 0}).awaited(1) == frozenset()


def test_to_drop_is_to_take_a_full_batch_and_to_give_up_what_it_makes_too_old() -> None:
    running = {0: 0, 3: 1, 4: 0}
    buffer = buffer_with(1, 1, ready={1: 1, 2: 0}, running=running, stale_groups=StaleGroups.DROP)

    assert buffer.awaited(1) == frozenset()
    assert taken(buffer, 1) == [2]
    assert buffer.give_up(1) == []  # they may still come in time for this version
    assert buffer.give_up(2) == [0, 4]
    assert buffer.running == {3}
    assert taken(buffer, 2) == [1]
    with pytest.raises(ValueError, match="group 0 does not run"):
        buffer.add(entry(0, 1))


def test_a_group_that_turned_out_younger_than_its_start_is_not_waited_for() -> None:
    buffer = buffer_with(1, 1, ready={1: 0}, running={0: 0})
    buffer.add(entry(0, 1))

    assert taken(buffer, 1) == [1]
    assert taken(buffer, 2) == [0]


def test_without_lag_a_batch_is_all_groups_of_its_version() -> None:
    buffer = buffer_with(3, 0, ready={5: 2, 3: 2}, running={4: 2})

    assert taken(buffer, 2) is None
    buffer.add(entry(4, 2))
    assert taken(buffer, 2) == [3, 4, 5]


def test_stale_groups_are_never_taken_and_are_swept_out_for_good() -> None:
    buffer = buffer_with(1, 1, ready={1: 0, 0: 0, 2: 1})

    assert taken(buffer, 2) == [2]
    assert [one.group_id for one in buffer.sweep(2)] == [0, 1]
    assert buffer.sweep(2) == []
    assert taken(buffer, 2) is None


def test_what_is_not_stale_and_what_still_runs_is_not_swept() -> None:
    buffer = buffer_with(1, 1, ready={0: 1}, running={1: 0})

    assert buffer.sweep(2) == []
    assert taken(buffer, 2) == [0]  # group 1 is overdue: to wait for it would cost group 0 its deadline
    buffer.add(entry(1, 0))
    assert [one.group_id for one in buffer.sweep(2)] == [1]


def test_more_groups_due_than_a_batch_holds_do_not_block() -> None:
    buffer = buffer_with(1, 0, ready={0: 3, 1: 3})

    assert taken(buffer, 3) == [0]
    assert [one.group_id for one in buffer.sweep(4)] == [1]


def test_a_place_is_held_until_its_group_was_trained() -> None:
    buffer = buffer_with(2, 1, ready={0: 0, 1: 0, 2: 0})
    assert taken(buffer, 0) == [0, 1]

    assert [one.group_id for one in buffer.held] == [0, 1, 2]
    assert taken(buffer, 1) is None
    buffer.release([0, 1])
    assert [one.group_id for one in buffer.held] == [2]


def test_only_groups_in_training_are_released_and_all_or_none() -> None:
    buffer = buffer_with(1, 1, ready={0: 0, 1: 0})
    buffer.take(0)

    with pytest.raises(ValueError, match=r"\[1\] cannot be released"):
        buffer.release([0, 1])
    buffer.release([0])
    with pytest.raises(ValueError, match=r"\[0\] cannot be released"):
        buffer.release([0])


def test_an_abandoned_group_is_not_waited_for() -> None:
    buffer = buffer_with(1, 1, ready={1: 1}, running={0: 0})

    buffer.abandoned(0)

    assert taken(buffer, 1) == [1]
    assert buffer.running == frozenset()
    with pytest.raises(ValueError, match="group 0 cannot be abandoned"):
        buffer.abandoned(0)
    with pytest.raises(ValueError, match="group 1 cannot be abandoned"):
        buffer.abandoned(1)  # in training


def test_a_complete_group_can_be_abandoned() -> None:
    buffer = buffer_with(1, 1, ready={0: 0})

    buffer.abandoned(0)

    assert buffer.held == ()


def test_a_group_comes_in_once_and_only_after_it_started() -> None:
    buffer = buffer_with(1, 1, ready={0: 0})

    for group_id in (0, 7):
        with pytest.raises(ValueError, match=f"group {group_id} does not run"):
            buffer.add(entry(group_id, 0))
    with pytest.raises(ValueError, match="complete already"):
        buffer.started(0, 0)


def test_a_reissued_group_counts_from_its_new_start() -> None:
    buffer = buffer_with(1, 1, ready={1: 1}, running={0: 0})

    buffer.started(0, 1)

    assert taken(buffer, 1) == [1]
    with pytest.raises(ValueError, match="confirmed versions do not go back"):
        buffer.started(0, 0)


def test_tokens_older_than_the_confirmed_version_are_a_workers_mistake() -> None:
    buffer = buffer_with(1, 2, running={0: 3})

    with pytest.raises(ValueError, match="a worker confirmed weights it did not use"):
        buffer.add(entry(0, 2))


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=8),
    st.integers(0, 6),
    st.sampled_from(StaleGroups),
)
def test_a_batch_is_full_fresh_and_as_old_as_can_be(
    size: int, lag: int, groups: list[tuple[bool, int]], version: int, stale_groups: StaleGroups
) -> None:
    ready = {i: v for i, (complete, v) in enumerate(groups) if complete}
    running = {i: v for i, (complete, v) in enumerate(groups) if not complete}
    buffer = buffer_with(size, lag, ready=ready, running=running, stale_groups=stale_groups)

    awaited = buffer.awaited(version)
    batch = taken(buffer, version)

    fresh = sorted((v, i) for i, v in ready.items() if v >= version - lag)
    assert awaited <= running.keys()  # only what still runs is worth waiting for
    if batch is None:
        assert len(fresh) < size or (awaited and stale_groups is StaleGroups.WAIT)
    else:
        assert not awaited
        assert batch == sorted(i for _, i in fresh[:size])
        assert len(batch) == size
