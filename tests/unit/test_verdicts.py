from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import cluster.verdicts
from cluster.verdicts import Verdicts
from rewards.parts import MatchError


class Asked:
    """A matcher that says 1 where both texts are the same, and keeps count."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str]] = []

    def __call__(self, answer: str, reference: str, /) -> float:
        self.questions.append((answer, reference))
        return float(answer == reference)


def test_a_question_is_asked_once_and_answer_and_reference_are_both_part_of_it() -> None:
    asked = Asked()
    verdicts = Verdicts(asked, 10)

    found = [verdicts(*question) for question in (("a", "a"), ("a", "b"), ("b", "a"), ("a", "a"), ("a", "b"))]

    assert found == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert asked.questions == [("a", "a"), ("a", "b"), ("b", "a")]


def test_what_was_asked_for_least_recently_is_forgotten_first() -> None:
    asked = Asked()
    verdicts = Verdicts(asked, 2)

    for answer in ("a", "b", "a", "c", "a", "b"):
        verdicts(answer, "")

    assert [answer for answer, _ in asked.questions] == ["a", "b", "c", "b"]


def test_an_error_is_raised_and_not_remembered() -> None:
    outcomes: list[float | None] = [None, 0.5]

    def moody(answer: str, reference: str, /) -> float:
        outcome = outcomes.pop(0)
        if outcome is None:
            raise MatchError("not now")
        return outcome

    verdicts = Verdicts(moody, 10)

    with pytest.raises(MatchError, match="not now"):
        verdicts("a", "b")
    assert [verdicts("a", "b"), verdicts("a", "b")] == [0.5, 0.5]


@pytest.mark.parametrize("fails", [False, True])
def test_those_who_ask_the_same_at_once_wait_for_one_verdict(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, entered, waiting, go_on = Asked(), threading.Event(), threading.Semaphore(0), threading.Event()

    class Seen(Future[float]):
        def result(self, timeout: float | None = None) -> float:
            waiting.release()
            return super().result(timeout)

    monkeypatch.setattr(cluster.verdicts, "Future", Seen)

    def slow(answer: str, reference: str, /) -> float:
        verdict = asked(answer, reference)
        entered.set()
        go_on.wait()
        if fails:
            raise MatchError("not now")
        return verdict

    verdicts = Verdicts(slow, 10)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(verdicts, "a", "a")
        entered.wait()
        others = [threads.submit(verdicts, "a", "a") for _ in range(7)]
        for _ in others:
            waiting.acquire()
        go_on.set()

    assert [verdict.exception() is None for verdict in (first, *others)] == [not fails] * 8
    assert fails or {verdict.result() for verdict in (first, *others)} == {1.0}
    assert len(asked.questions) == 1
