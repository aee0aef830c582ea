"""What a matcher has said, so that it need not be asked again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from rewards.parts import Matcher


class Verdicts:
    """A matcher that remembers the verdicts of another one, those least recently asked for forgotten first.

    Several threads that ask the same at once, as those of a group do whose responses agree, wait for one verdict. An
    error reaches all who wait and is not remembered.
    """

    def __init__(self, asked: Matcher, at_most: int) -> None:
        self._asked = asked
        self._at_most = at_most
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str], Future[float]] = OrderedDict()

    def __call__(self, answer: str, reference: str, /) -> float:
        """The verdict, the other matcher's or a remembered one. Raises what the other one raises."""
        question = (answer, reference)
        own: Future[float] = Future()
        with self._lock:
            verdict = self._held.setdefault(question, own)
            self._held.move_to_end(question)
            if len(self._held) > self._at_most:
                self._held.popitem(last=False)
        if verdict is own:
            self._ask(question, own)
        return verdict.result()

    def _ask(self, question: tuple[str, str], verdict: Future[float]) -> None:
        try:
            verdict.set_result(self._asked(*question))
        except BaseException as error:  # noqa: BLE001  # whatever it is: who waits for the verdict raises it
            with self._lock:
                if self._held.get(question) is verdict:
                    del self._held[question]
            verdict.set_exception(error)
