"""A tuning around Ray Tune: what is laid out before it, what a signal does, how it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import tuning
from cluster.digests import evaluation_digest, training_digest
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from cluster.sweep import read_sweep
from cluster.trials import Trial, give_up, planned, stop_request
from cluster.tuning import run_tuning
from cluster.tuning_end import TuningEnd
from configs.load import load_recipe
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


@pytest.fixture
def base(tmp_path: Path) -> Recipe:
    return load_recipe(DEMO, [f"output={tmp_path}"])


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return planned(DEMO, read_sweep([f"output={tmp_path}", "seed=1,2"]), None, 0, stopping=True)


@pytest.fixture
def fitted(base: Recipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The recipes that Tune was given; it finishes none. Neither data nor Ray are needed."""
    asked: list[list[str]] = []
    RunFolder.of(base).stage(2).model.mkdir(parents=True)
    monkeypatch.setattr(tuning, "_check", lambda *_: None)
    monkeypatch.setattr(tuning, "connect", lambda run: None)
    monkeypatch.setattr(tuning, "_warn_of_size", lambda trials: None)
    monkeypatch.setattr(tuning, "report", lambda trials, folder: "the table")
    monkeypatch.setattr(
        tuning, "_fit", lambda trials, *_, **__: asked.append([trial.run.recipe.read_text() for trial in trials])
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield asked
    for number, handler in before.items():
        signal.signal(number, handler)


def finish(trial: Trial) -> None:
    stage = trial.run.stage(3)
    stage.path.mkdir(parents=True, exist_ok=True)
    stage.finish("training", training_digest(trial.recipe, 3))
    stage.finish("evaluation", evaluation_digest(trial.recipe, 3))


def test_tune_gets_the_recipes_from_the_trials_folders(
    base: Recipe, trials: list[Trial], fitted: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    finish(trials[0])
    trials[1].run.stage(3).path.mkdir(parents=True)
    give_up(trials[1].recipe)

    assert run_tuning(base, trials, stopping=True, at_once=None) == 0

    assert [f"seed: {number}" in text.splitlines() for number, text in enumerate(fitted[0], start=1)] == [True, True]
    assert all(trial.run.stage(2).model.exists() for trial in trials)
    assert capsys.readouterr().out == "the table\n"


def test_a_trial_that_failed_makes_the_exit_code(
    base: Recipe, trials: list[Trial], fitted: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    finish(trials[0])

    assert run_tuning(base, trials, stopping=True, at_once=None) == 1

    assert "trials failed: seed-2;" in caplog.text


def test_with_run_all_those_that_were_given_up_go_on(
    base: Recipe, trials: list[Trial], fitted: list[list[str]]
) -> None:
    for trial in trials:
        trial.run.stage(3).path.mkdir(parents=True)
        give_up(trial.recipe)

    run_tuning(base, trials, stopping=False, at_once=None)

    assert [trial.given_up for trial in trials] == [False, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_all_trials_to_stop_and_the_next_tuning_takes_that_back(
    base: Recipe, trials: list[Trial], fitted: list[list[str]], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    request = stop_request(trials[0].run.path.parent)

    def told(*_: object, **__: object) -> None:
        assert not request.exists()
        os.kill(os.getpid(), number)
        assert request.exists()
        assert signal.getsignal(number) is signal.SIG_DFL  # a second one ends the process

    monkeypatch.setattr(tuning, "_fit", told)

    with pytest.raises(Stopped, match="0 of 2 trials have ended; the same command goes on"):
        run_tuning(base, trials, stopping=True, at_once=None)
    with pytest.raises(Stopped):
        run_tuning(base, trials, stopping=True, at_once=None)


def test_without_a_stage_2_nothing_begins(base: Recipe, trials: list[Trial]) -> None:
    with pytest.raises(FileNotFoundError, match="run stage 2 first"):
        run_tuning(base, trials, stopping=True, at_once=None)


def test_without_an_evaluation_file_nothing_begins(base: Recipe, trials: list[Trial], fitted: list[list[str]]) -> None:
    without = base.model_copy(update={"data": base.data.model_copy(update={"evaluation": {}})})

    with pytest.raises(ValueError, match=r"data.evaluation names no file.*name one"):
        run_tuning(without, trials, stopping=True, at_once=None)


@dataclass
class Told:
    """A trial as Tune has it."""

    status: str


def test_tunes_loop_ends_when_the_last_trial_that_ran_has_stopped(tmp_path: Path) -> None:
    ended, (running, other, waiting) = threading.Event(), (Told("RUNNING"), Told("RUNNING"), Told("PENDING"))
    before = signal.signal(signal.SIGUSR1, lambda *_: ended.set())
    end = TuningEnd(tmp_path / "stop")
    try:
        end.on_trial_complete(1, [running, waiting], running)
        (tmp_path / "stop").touch()
        end.on_trial_complete(1, [running, other, waiting], running)
        assert not ended.is_set()  # nobody asked; then one still ran

        running.status = "TERMINATED"
        end.on_trial_error(1, [running, other, waiting], other)
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
