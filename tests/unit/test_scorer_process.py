"""A user's scorer in a real child process: whatever it does costs one call, and the next one works."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import psutil
import pytest

from rollout.scorer_process import STARTS, ScorerError, ScorerProcess, UnusableScorer

SCORERS = "tests.unit.user_scorers"
GENEROUS = 60.0  # seconds


@pytest.fixture(scope="module")
def moody() -> Iterator[ScorerProcess]:
    with closing(ScorerProcess(f"{SCORERS}:Moody", GENEROUS, 1.0)) as scorer:
        yield scorer


def scorer_of(name: str, seconds: float = GENEROUS) -> closing[ScorerProcess]:
    return closing(ScorerProcess(f"{SCORERS}:{name}", seconds, 1.0))


def children() -> set[int]:
    """Processes of this one."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(number) for file in found for number in file.read_text(encoding="ascii").split()}


def test_a_scorer_of_the_users_is_asked_in_another_process() -> None:
    with scorer_of("Overlap") as overlap:
        assert overlap("a cat sat", "the cat sat down") == 0.5
        assert overlap("down sat the cat", "the cat sat down") == 1.0
        assert "tests.unit.user_scorers" not in sys.modules


@pytest.mark.parametrize("text", ["", "\0 \n", "é ☺ \U0001f600", "\ud800", '{"score": 1}', "x" * 1_000_000])
def test_texts_arrive_as_they_were(text: str) -> None:
    with scorer_of("Echo") as echo:
        assert echo(text, text) == 1.0
        assert echo(text, f"{text}.") == 0.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        *[("be good", 1.0), ("say true", 1.0), ("say numpy", 0.25)],
        *[("say np.bool_", 1.0), ("say an array", 0.25)],
    ],
)
def test_whatever_is_a_number_in_the_unit_interval_is_a_score(moody: ScorerProcess, answer: str, score: float) -> None:
    assert moody(answer, "") == score


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("raise", "KeyError: 'no such mood: blue'"),
        ("exit", "exited with code 3"),
        ("die", f"was ended by signal {signal.SIGABRT.value}"),
        ("take 4 GiB", "MemoryError: Unable to allocate 4.00 GiB"),
        ("say yes", "it returned 'yes', expected a number"),
        ("say a text", "it returned '0.25', expected a number"),
        ("say bytes", "it returned b'0.25', expected a number"),
        ("say two", "TypeError: only "),
        ("say nan", "it returned nan, expected a number"),
        ("say 2", "it returned 2.0, expected a number"),
        ("say less than nothing", "it returned -0.1, expected a number"),
        ("write into every file", "wrote into the pipe"),
    ],
)
def test_a_scorer_that_fails_costs_one_call(moody: ScorerProcess, answer: str, cause: str) -> None:
    with pytest.raises(ScorerError, match=r"the scorer tests\.unit\.user_scorers:Moody") as raised:
        moody(answer, "blue")

    assert cause in str(raised.value)
    assert moody("be good", "blue") == 1.0


@pytest.mark.parametrize("answer", ["fork", "fork and raise"])
def test_a_scorer_that_forks_answers_a_question_once(answer: str) -> None:
    with scorer_of("Moody") as moody:
        before = children()
        for _ in range(3):
            with pytest.raises(ScorerError, match="KeyError") if answer != "fork" else nullcontext():
                moody(answer, "")
            with pytest.raises(ScorerError, match="it returned 'yes'"):
                moody("say yes", "")
        assert moody("say numpy", "") == 0.25
        assert children() == before


def test_a_scorer_that_forks_when_it_is_made_is_one_process() -> None:
    with scorer_of("ForksWhenMade") as scorer:
        assert len({scorer("", "") for _ in range(20)}) == 1


def test_a_reply_to_an_earlier_question_is_not_taken_for_one_to_the_next() -> None:
    with scorer_of("Stammers") as stammers:
        assert stammers("twice", "") == 1.0

        with pytest.raises(ScorerError, match="gave an answer to another question than the last"):
            stammers("once", "")

        assert stammers("once", "") == 0.0


def test_what_a_scorer_prints_is_not_among_what_the_command_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with scorer_of("Moody") as moody:
        moody("print", "")

    assert capfd.readouterr() == ("", "printed\n")


@pytest.mark.parametrize("answer", ["hang", "hang in the interpreter"])
def test_a_scorer_that_hangs_is_killed_and_costs_one_call(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    with scorer_of("Moody") as moody:
        (hung,) = children() - before

        with monkeypatch.context() as brief, pytest.raises(ScorerError, match="gave no answer in 2 s"):
            brief.setattr(moody, "_seconds", 2.0)
            moody(answer, "")

        assert hung not in children()
        assert moody("be good", "") == 1.0


def test_an_exception_is_told_with_the_line_it_came_from_and_keeps_the_process(moody: ScorerProcess) -> None:
    before = children()

    with pytest.raises(ScorerError, match=r"user_scorers\.py\", line \d+, in __call__"):
        moody("raise", "blue")

    assert children() == before


def test_a_process_that_was_killed_between_calls_costs_none() -> None:
    before = children()
    with scorer_of("Moody") as moody:
        (child,) = children() - before
        ended = os.pidfd_open(child)
        os.kill(child, signal.SIGKILL)
        select.select([ended], [], [])
        os.close(ended)

        assert moody("be good", "") == 1.0


def test_a_signal_to_all_of_a_job_does_not_cost_the_answers_of_its_last_moments() -> None:
    before = children()
    with scorer_of("Moody") as moody:
        (child,) = children() - before
        os.kill(child, signal.SIGTERM)

        assert moody("be good", "") == 1.0
        assert child in children()


def test_what_a_scorer_started_ends_with_it() -> None:
    with scorer_of("Moody") as moody:
        left = round(moody("leave a child", "") * 2**22)
        assert Path(f"/proc/{left}").exists()

    with suppress(psutil.NoSuchProcess):
        ending, given_up = psutil.Process(left), time.monotonic() + GENEROUS
        while ending.status() != psutil.STATUS_ZOMBIE:  # it is killed, and ends when it has a core for that
            assert time.monotonic() < given_up
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (f"{SCORERS}:RaisesWhenMade", "OSError: no model here"),
        (f"{SCORERS}:NotCallable", "makes an object that cannot be called"),
        (f"{SCORERS}:Missing", "has no attribute 'Missing'"),
        ("no.such.module:Scorer", "No module named 'no'"),
    ],
)
def test_a_scorer_that_cannot_be_made_says_which_setting_named_it_and_why(name: str, cause: str) -> None:
    before = children()

    with pytest.raises(UnusableScorer, match=f"^rewards.correctness: the scorer {name} cannot be made") as raised:
        ScorerProcess(name, GENEROUS, 1.0)

    assert cause in str(raised.value)
    assert children() == before


def test_a_scorer_that_dies_when_it_is_made_is_tried_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBER_TEST_FILE", str(tmp_path / "made"))

    with pytest.raises(UnusableScorer, match=f"was ended by signal 6, {STARTS} times in a row"):
        ScorerProcess(f"{SCORERS}:DiesWhenMade", GENEROUS, 1.0)

    assert (tmp_path / "made").read_text(encoding="utf-8") == "made\n" * STARTS


def test_a_scorer_that_cannot_be_replaced_is_given_up_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBER_TEST_FILE", str(tmp_path / "made"))
    with closing(ScorerProcess(f"{SCORERS}:DiesWhenMadeAgain", GENEROUS, 1.0)) as scorer:
        with pytest.raises(ScorerError, match="was ended by signal 6"):
            scorer("", "")

        for _ in range(2):
            with pytest.raises(UnusableScorer, match=f"{STARTS} times in a row"):
                scorer("", "")


PARENT = f"""
import sys
import time
from rollout.scorer_process import ScorerProcess
scorer = ScorerProcess("{SCORERS}:Moody", float(sys.argv[2]), 1.0)
print(scorer._child._process.pid, flush=True)
scorer(sys.argv[1], "")
"""


@pytest.mark.parametrize(("answer", "seconds"), [("hang", "600"), ("hang in the interpreter", "3")])
def test_the_death_of_the_parent_ends_a_scorer_that_hangs(answer: str, seconds: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, answer, seconds]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        assert parent.stderr.readline() == "hanging\n"

        parent.kill()

        assert select.select([child], [], [], 30)[0]
    os.close(child)
