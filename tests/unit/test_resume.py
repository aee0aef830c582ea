"""Stage 3 killed and resumed, in virtual time: what is trained on in all is what an undisturbed run trains on."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.groups import Groups
from configs.schema import StaleGroups
from tests.unit import virtual_time
from tests.unit.test_controller import Trial, trial

STEPS, SIZE = 30, 4


def killed(run: Trial, seconds: float) -> None:
    """Run for so long. Nothing in the controller does anything on its cancellation that a death would not do."""

    async def job() -> None:
        running = asyncio.create_task(run.controller.run())
        await asyncio.wait([running], timeout=seconds)
        running.cancel()
        await asyncio.wait([running])

    virtual_time.run(job())


def lived_through(runs: list[Trial]) -> list[list[tuple[int, int]]]:
    """(group, version of its oldest token) of each step that the last run's weights have seen."""
    steps: list[list[tuple[int, int]]] = []
    for run in (run for run in runs if run.learners.trained):
        steps = steps[: run.learners.resumed_at]
        steps += [[(g, run.learners.records[g].oldest_version) for g in batch] for batch in run.learners.trained]
    return steps


def assert_accounts_close(runs: list[Trial], lag: int) -> None:
    """Every admitted group was trained on once, or dropped with a reason, and none was too old."""
    steps, ledger = lived_through(runs), runs[-1].ledger
    trained = [group for group, _ in chain(*steps)]
    assert [len(batch) for batch in steps] == [SIZE] * STEPS
    assert sorted([*trained, *(group for group, *_ in ledger["dropped"])]) == list(range(ledger["admitted"]))
    assert ledger["outstanding"] == []
    assert max(step - oldest for step, batch in enumerate(steps) for _, oldest in batch) <= lag
    assert runs[-1].logged("step") == list(range(1, STEPS + 1))


@settings(max_examples=25)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.floats(0.1, 40.0), st.booleans()), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from(StaleGroups),
    st.frozensets(st.integers(1, STEPS - 1), max_size=12),
    st.integers(0, 10**6),
)
def test_a_run_that_is_killed_again_and_again_ends_with_every_group_accounted_for_once(
    lag: int,
    kills: list[tuple[float, bool]],
    failing: float,
    stale_groups: StaleGroups,
    full_at: frozenset[int],
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        runs: list[Trial] = []

        def start(number: int) -> Trial:
            options: dict[str, Any] = {"failing": failing, "stale_groups": stale_groups, "full_at": full_at}
            run = trial(Path(name), lag=lag, seed=seed + number, workers=1 + number, checkpoint_every=3, **options)
            runs.append(run)
            return run

        for number, (seconds, damages) in enumerate(kills):
            killed(start(number), seconds)
            if damages and len(checkpoints := runs[-1].checkpoints.newest_first()) > 1:
                (checkpoints[0] / "state.json").write_text("{}")
        steps = virtual_time.run(start(len(kills)).controller.run())

        assert steps == STEPS
        assert_accounts_close(runs, lag)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_groups_that_were_complete_are_taken_up_and_not_sampled_again_whatever_the_number_of_workers(
    tmp_path: Path, workers: int
) -> None:
    first = trial(tmp_path, lag=4, checkpoint_every=5)
    killed(first, 30.0)

    second = trial(tmp_path, lag=4, seed=1, workers=workers)
    virtual_time.run(second.controller.run())

    assert second.learners.resumed_at > 0
    assert second.learners.resumed_with
    assert not second.pool.started_under.keys() & set(second.learners.resumed_with)
    assert_accounts_close([first, second], lag=4)
    assert second.ledger["dropped"] == []


def test_a_group_that_is_too_old_for_the_resumed_run_is_dropped_with_that_reason(tmp_path: Path) -> None:
    first = trial(tmp_path, lag=4, checkpoint_every=5)
    killed(first, 30.0)

    second = trial(tmp_path, lag=0, seed=1)
    virtual_time.run(second.controller.run())

    reasons = {group: reason for group, _, reason in second.ledger["dropped"]}
    too_old = {
        group
        for group in second.learners.resumed_with
        if second.learners.records[group].oldest_version < second.learners.resumed_at
    }
    assert too_old
    assert reasons == dict.fromkeys(too_old, "stale")
    assert_accounts_close([first, second], lag=4)


def test_a_kept_group_that_the_ledger_has_closed_is_a_mistake_and_said_to_be_one(tmp_path: Path) -> None:
    first = trial(tmp_path, lag=4, checkpoint_every=5)
    killed(first, 30.0)
    newest = first.checkpoints.newest_first()[0]
    record = first.learners.records[0]  # trained on in the first step

    with pytest.raises(ValueError, match="group 0 is kept as untrained, and the ledger says it is not"):
        Groups(first.recipe.rl, lambda: 0.0).load_state_dict(first.checkpoints.read(newest).state, [(record, None)])


def test_a_disk_that_is_full_for_a_while_is_counted_in_the_log_and_costs_no_step(tmp_path: Path) -> None:
    run = trial(tmp_path, checkpoint_every=5, full_at=frozenset({10, 15}))

    steps = virtual_time.run(run.controller.run())

    assert steps == STEPS
    assert run.logged("checkpoints_failed") == [0.0] * 10 + [1.0] * 5 + [2.0] * 15
    assert_accounts_close([run], lag=1)


def test_a_disk_that_is_full_at_the_end_is_an_error_and_the_checkpoint_before_it_goes_on(tmp_path: Path) -> None:
    first = trial(tmp_path, checkpoint_every=25, full_at=frozenset({STEPS}))
    with pytest.raises(OSError, match="No space left"):
        virtual_time.run(first.controller.run())

    second = trial(tmp_path, seed=1)
    virtual_time.run(second.controller.run())

    assert second.learners.resumed_at == 25
    assert_accounts_close([first, second], lag=1)


def test_warnings_are_told_when_an_undisturbed_run_would_tell_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def collapses() -> list[str]:
        told = [record.getMessage() for record in caplog.records if "COLLAPSE" in record.getMessage()]
        caplog.clear()
        return [line.partition(":")[0] for line in told]

    virtual_time.run(trial(tmp_path / "undisturbed").controller.run())
    undisturbed = collapses()
    killed(trial(tmp_path / "killed", checkpoint_every=7), 25.0)
    before = collapses()
    virtual_time.run(trial(tmp_path / "killed").controller.run())

    assert undisturbed == ["step 20"]  # all of a window's confidences are 0.5
    assert before == []
    assert collapses() == undisturbed
