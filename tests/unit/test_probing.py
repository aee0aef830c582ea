"""The probe in a whole run with fakes: engines and learner paired by version, and what comes too late or never."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.probing import Logprobs, Probing
from learner.rl import RlReport
from rollout.probe import Probe
from tests.unit import virtual_time
from tests.unit.test_controller import METERS, PROBE, trial

STEPS = 30


def report(probe: Probe | None = None, logprobs: NDArray[np.float32] | None = None) -> RlReport:
    return RlReport(0.0, 0.1, 1e-4, METERS, None, None, None, 10, 1.0, probe, logprobs)


def values(*of: float) -> NDArray[np.float32]:
    return np.array(of, np.float32)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_engine_and_learner_are_compared_at_every_weight_version_after_the_first(tmp_path: Path, lag: int) -> None:
    run = trial(tmp_path, lag=lag)

    virtual_time.run(run.controller.run())

    logged = run.logged("probe")
    assert logged[0] is None  # its step chose the probe
    assert [value for value in logged if value is not None] == [0.0] * (STEPS - 1)
    assert run.pool.probed[: STEPS - 1] == list(range(1, STEPS))
    assert set(run.logged("warning/parity")[1:]) == {0.0}


def test_weights_that_do_not_arrive_are_seen_at_the_first_step_under_them_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trial(tmp_path, lag=1)
    run.pool.corrupted_at = 10

    virtual_time.run(run.controller.run())

    assert run.logged("probe")[1:] == [0.0] * 9 + [1.0] * 20
    assert run.logged("parity") == [None] * STEPS
    assert run.logged("warning/parity") == [None] + [0.0] * 9 + [1.0] * 20
    assert "PARITY: engine and learner are 0.100 nats a token apart" in caplog.text


@pytest.mark.parametrize("seconds", [1.2, 2.5, 1e9])
def test_a_slow_engine_delays_nothing(tmp_path: Path, seconds: float) -> None:
    async def timed(run: object) -> float:
        await run.controller.run()  # type: ignore[attr-defined]
        return asyncio.get_running_loop().time()

    quick, slow = trial(tmp_path / "quick"), trial(tmp_path / "slow")
    slow.pool.seconds_to_probe = seconds
    taken = [virtual_time.run(timed(run)) for run in (quick, slow)]

    assert taken[0] == taken[1]
    assert set(slow.logged("probe")) <= {None, 0.0}
    if math.isclose(seconds, 1e9):
        assert slow.pool.probed == [1]
        assert slow.logged("warning/parity") == [None] * STEPS


def test_an_answer_that_comes_after_its_steps_line_is_in_the_next_and_in_that_alone() -> None:
    async def job() -> list[float | None]:
        answer: asyncio.Future[Logprobs | None] = asyncio.get_running_loop().create_future()
        probing = Probing(lambda probe, version: answer)
        assert not probing.due(9)  # there is no probe yet
        probing.trained(3, report(probe=PROBE))
        assert not probing.due(3)  # the learner did not compute it at that version
        assert probing.due(4)
        asking = asyncio.create_task(probing.ask(4))
        await asyncio.sleep(0)
        assert not probing.due(4)
        probing.trained(4, report(logprobs=values(-1.0, -2.0)))
        read = [probing.read()]
        answer.set_result(values(-1.5, -2.0))
        await asking
        for version in (5, 6):
            probing.trained(version, report(logprobs=values(0.0, 0.0)))
            read.append(probing.read())
        return read

    assert virtual_time.run(job()) == [None, 0.25, None]


def test_what_an_engine_has_no_answer_to_is_forgotten() -> None:
    async def none(probe: Probe, version: int) -> None:
        return None

    async def job() -> Probing:
        probing = Probing(none)
        probing.trained(0, report(probe=PROBE))
        for version in range(1, 100):
            await probing.ask(version)
            probing.trained(version, report(logprobs=values(-1.0)))
            assert probing.read() is None
        return probing

    assert len(virtual_time.run(job())._learner) == 1
