"""The job of a trial, in this process, with a stage 3 that only writes its log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster import trial_job
from cluster.digests import evaluation_digest, training_digest
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from cluster.stopping import until_told_to_stop
from cluster.sweep import read_sweep
from cluster.trial_job import TrialJob
from cluster.trials import Trial, give_up, planned, stop_request
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
STEPS = 4


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process is as it was when the test has ended."""
    monkeypatch.setattr(trial_job, "_SECONDS_BETWEEN_LOOKS", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    sweep = read_sweep([f"output={tmp_path}", "seed=1,2", f"rl.steps={STEPS}"])
    found = planned(DEMO, sweep, None, 0, stopping=True)[0]
    found.run.stage(3).path.mkdir(parents=True)
    return found


@dataclass
class Started:
    """The jobs that were started. Each logs what is not there yet, a line at a time, until it is told to stop."""

    names: list[str] = field(default_factory=list)
    held_at: int | None = None  # a step that lasts until the job is told to stop, for a minute at most


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    jobs = Started()

    async def job(recipe: Recipe) -> None:
        jobs.names.append(recipe.name)
        stop, run = asyncio.Event(), RunFolder.of(recipe)
        async with until_told_to_stop(stop.set, 60):
            for step in range(logged(run) + 1, STEPS + 1):
                log(run, step)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 60.0 if step == jobs.held_at else 0.05)
                if stop.is_set():
                    raise Stopped("stopped")
        finish(recipe)

    monkeypatch.setattr(trial_job, "reinforce_and_evaluate", job)
    return jobs


def log(run: RunFolder, step: int) -> None:
    with (run.stage(3).path / "log.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": step, "accuracy": step / 10, "brier": 0.0, "malformed": 0.0, "reward": 7.0}) + "\n"
        )


def logged(run: RunFolder) -> int:
    file = run.stage(3).path / "log.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def finish(recipe: Recipe) -> None:
    stage = RunFolder.of(recipe).stage(3)
    stage.finish("training", training_digest(recipe, 3))
    stage.finish("evaluation", evaluation_digest(recipe, 3))


def calls(job: TrialJob, until: Callable[[int], None] | None = None) -> list[dict[str, float]]:
    """What calls return until the trial is done; `until` is told of each."""
    found: list[dict[str, float]] = []
    while not (found and found[-1]["done"]):
        found.append(job.next())
        assert len(found) <= STEPS
        if until is not None:
            until(len(found))
    job.close()
    return found


def test_each_call_tells_one_step_and_the_last_comes_when_all_is_done(trial: Trial, started: Started) -> None:
    found = calls(TrialJob(trial.recipe))

    assert started.names == [trial.recipe.name]
    assert [one["done"] for one in found] == [False, False, False, True]
    assert [one["accuracy"] for one in found] == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert found[0]["score"] == pytest.approx(0.1)
    assert trial.finished


@pytest.mark.parametrize("end", [finish, give_up])
def test_a_trial_that_has_ended_tells_its_steps_and_starts_nothing(
    trial: Trial, started: Started, end: Callable[[Recipe], None]
) -> None:
    for step in (1, 2, 3):
        log(trial.run, step)
    end(trial.recipe)

    found = calls(TrialJob(trial.recipe))

    assert started.names == []
    assert [one["accuracy"] for one in found] == pytest.approx([0.1, 0.15, 0.2, 0.2])


def test_an_interrupted_trial_tells_its_steps_before_it_goes_on(trial: Trial, started: Started) -> None:
    log(trial.run, 1)
    log(trial.run, 2)
    interrupted = TrialJob(trial.recipe)

    told = [interrupted.next(), interrupted.next()]

    assert started.names == []
    assert [one["accuracy"] for one in told] == pytest.approx([0.1, 0.15])
    assert [one["done"] for one in calls(interrupted)] == [False, True]
    assert started.names == [trial.recipe.name]


@pytest.mark.parametrize("asked", ["the trial", "the whole tuning"])
def test_a_trial_that_is_to_stop_tells_its_job_and_ends(trial: Trial, started: Started, asked: str) -> None:
    started.held_at = 2

    def ask(call: int) -> None:
        if call == 2 and asked == "the trial":
            give_up(trial.recipe)
        elif call == 2:
            stop_request(trial.run.path.parent).touch()

    found = calls(TrialJob(trial.recipe), ask)

    assert [one["done"] for one in found] == [False, False, True]
    assert not trial.finished
    assert logged(trial.run) < STEPS


def test_where_all_are_to_stop_none_begins(trial: Trial, started: Started) -> None:
    stop_request(trial.run.path.parent).touch()

    assert calls(TrialJob(trial.recipe)) == [{"done": True}]
    assert started.names == []


def test_a_job_that_fails_fails_its_trial(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(recipe: Recipe) -> None:
        log(RunFolder.of(recipe), 1)
        raise RuntimeError("no room")

    monkeypatch.setattr(trial_job, "reinforce_and_evaluate", fail)
    failing = TrialJob(trial.recipe)

    assert failing.next()["accuracy"] == pytest.approx(0.1)
    with pytest.raises(RuntimeError, match="no room"):
        failing.next()


def test_a_trial_that_is_ended_there_and_then_gives_up_its_job_in_order(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def job(recipe: Recipe) -> None:
        log(RunFolder.of(recipe), 1)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(recipe.name)

    monkeypatch.setattr(trial_job, "reinforce_and_evaluate", job)
    ended = TrialJob(trial.recipe)
    ended.next()

    ended.close()

    assert closed == [trial.recipe.name]
