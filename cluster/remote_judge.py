"""A judge that is asked over HTTP whether an answer is right.

    POST {"answer": text, "reference": text}   ->   200 {"score": number in [0, 1]}

Anything else is no verdict. A request that fails for want of the judge (no connection, no answer in time, 408, 429,
5xx) is sent again; one that it refuses is not. Time limits are of whole requests, and one is of them all together.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Mapping

from urllib3 import BaseHTTPResponse, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError

from cluster.breaker import CircuitBreaker
from cluster.timed_connections import timed_connections
from cluster.verdicts import Verdicts
from configs.reward_settings import LONGEST_PAUSE
from configs.schema import Judge
from rewards.parts import MatchError

SENT_AGAIN = frozenset({408, 429, *range(500, 600)})
OF_THE_QUESTION = frozenset({400, 413, 422})  # what is wrong is the question: a judge that says so is well
SHORTEST = 0.001  # seconds; urllib3 refuses to wait for none, where a pause took a little longer than was left
BODY_AT_MOST = 4096  # bytes of an answer; no score is longer
BODY_SHOWN = 200  # bytes of an answer that is none


class JudgeError(MatchError):
    """The judge gave no verdict."""


class JudgePausedError(JudgeError):
    """The judge is not asked at the moment, as it failed too often."""


class JudgeRefusedError(JudgeError):
    """The judge does not take this question, and may well take the next."""


class RemoteJudge:
    """A matcher that asks a service. Safe to call from several threads at once, which is what makes it fast."""

    def __init__(self, settings: Judge) -> None:
        """Nothing is sent yet. Raises ValueError where the variable that should hold the token does not."""
        self._url = settings.url
        self._seconds, self._seconds_at_most = settings.seconds_per_request, settings.seconds_at_most
        self._token = _token(settings.token_variable)
        self._headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._attempts, self._backoff = settings.attempts, settings.seconds_of_backoff
        self._connections = timed_connections(maxsize=settings.requests_at_once, retries=False)
        self._breaker = CircuitBreaker(
            f"the judge at {settings.url}", settings.failures_before_pause, settings.pause_seconds
        )
        self._verdicts = Verdicts(self._ask, settings.cached_verdicts)

    def __call__(self, answer: str, reference: str, /) -> float:
        """The judge's score. Raises JudgeError where there is none, JudgePausedError where it was not asked."""
        return self._verdicts(answer, reference)

    def close(self) -> None:
        """End the connections."""
        self._connections.clear()

    def _ask(self, answer: str, reference: str, /) -> float:
        if not self._breaker.lets_through():
            raise JudgePausedError(f"the judge at {self._url} failed too often and is not asked for a while")
        try:
            verdict = self._score({"answer": answer, "reference": reference})
        except JudgeRefusedError:
            self._breaker.succeeded()
            raise
        except JudgeError as error:
            self._breaker.failed(str(error))
            raise
        self._breaker.succeeded()
        return verdict

    def _score(self, question: Mapping[str, str]) -> float:
        with self._answer(question) as response:
            status, body = response.status, self._body(response)
        score = _read_score(status, body)
        if score is None:
            kind = JudgeRefusedError if status in OF_THE_QUESTION else JudgeError
            raise kind(
                f"the judge at {self._url} answered {status} {self._shown(body)!r}, expected 200 and "
                '{"score": a number in [0, 1]}'
            )
        return score

    def _answer(self, question: Mapping[str, str]) -> BaseHTTPResponse:
        """The beginning of an answer, after as many attempts as it takes and are allowed. Raises JudgeError."""
        until = time.monotonic() + self._seconds_at_most
        for attempt in itertools.count(1):
            asked_for = None
            try:
                response = self._sent(question, max(SHORTEST, min(self._seconds, until - time.monotonic())))
            except HTTPError as error:
                cause = str(error)
            else:
                if response.status not in SENT_AGAIN:
                    return response
                response.close()  # unread: the rest of it may be long in coming
                cause, asked_for = f"it answered {response.status}", _retry_after(response)
            pause = asked_for or self._pause(attempt)
            if attempt == self._attempts or time.monotonic() + pause >= until:
                break
            time.sleep(pause)
        raise JudgeError(f"the judge at {self._url} gave no verdict after {attempt} attempts: {cause}")

    def _sent(self, question: Mapping[str, str], seconds: float) -> BaseHTTPResponse:
        return self._connections.request(
            "POST",
            self._url,
            json=question,
            headers=self._headers,
            redirect=False,
            preload_content=False,
            timeout=Timeout(total=seconds),
        )

    def _pause(self, attempt: int) -> float:
        """Seconds after a failed attempt, the first of which is 1; shortened at random by up to half."""
        return min(LONGEST_PAUSE, self._backoff * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def _body(self, response: BaseHTTPResponse) -> bytes:
        """An answer, as far as a score may go. Raises JudgeError where it breaks off, or goes on after its time."""
        body = b""
        try:
            while len(body) <= BODY_AT_MOST and (piece := response.read1(BODY_AT_MOST + 1 - len(body))):
                body += piece
        except ReadTimeoutError:
            raise JudgeError(
                f"the judge at {self._url} gave no verdict: its answer is not whole after its time"
            ) from None
        except HTTPError as error:
            raise JudgeError(f"the judge at {self._url} gave no verdict: {error}") from error
        return body

    def _shown(self, body: bytes) -> bytes:
        """The beginning of an answer, for a log: without the token, which a judge may repeat in what it says."""
        return (body if self._token is None else body.replace(self._token.encode(), b"***"))[:BODY_SHOWN]


def _retry_after(response: BaseHTTPResponse) -> float | None:
    """Seconds that the judge asks to be left alone for, 10 at most; None: it does not say."""
    try:
        return Retry(retry_after_max=int(LONGEST_PAUSE)).get_retry_after(response)
    except InvalidHeader:
        return None


def _read_score(status: int, body: bytes) -> float | None:
    if len(body) > BODY_AT_MOST:
        return None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if status != 200 or not isinstance(message, dict) or message.keys() != {"score"}:
        return None
    score = message["score"]
    return float(score) if type(score) in (int, float) and 0 <= score <= 1 else None


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise ValueError(
            f"rewards.judge.token_variable: the environment has no {variable}; set it where this command runs and on "
            "every node of the cluster, before Ray starts there"
        )
    return token
