"""A judge that is asked over HTTP whether an answer is right.

    POST {"answer": text, "reference": text}   ->   200 {"score": number in [0, 1]}

Anything else is no verdict. A request that fails for want of the judge (no connection, no answer in time, 408, 429,
5xx) is sent again; one that it refuses is not.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from cluster.breaker import CircuitBreaker
from cluster.verdicts import Verdicts
from configs.reward_settings import LONGEST_PAUSE
from configs.schema import Judge
from rewards.parts import MatchError

SENT_AGAIN = frozenset({408, 429, *range(500, 600)})
BODY_AT_MOST = 4096  # bytes of an answer; no score is longer
BODY_SHOWN = 200  # bytes of an answer that is none


class JudgeError(MatchError):
    """The judge gave no verdict."""


class JudgePausedError(JudgeError):
    """The judge is not asked at the moment, as it failed too often."""


class RemoteJudge:
    """A matcher that asks a service. Safe to call from several threads at once, which is what makes it fast."""

    def __init__(self, settings: Judge) -> None:
        """Nothing is sent yet. Raises ValueError where the variable that should hold the token does not."""
        self._url = settings.url
        self._seconds, self._seconds_at_most = settings.seconds_per_request, settings.seconds_at_most
        self._token = _token(settings.token_variable)
        self._headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._connections = PoolManager(
            maxsize=settings.requests_at_once,
            timeout=Timeout(total=settings.seconds_per_request),
            retries=_Retry(
                total=settings.attempts - 1,
                allowed_methods=None,  # POST too: to judge changes nothing
                status_forcelist=SENT_AGAIN,
                backoff_factor=settings.seconds_of_backoff,
                backoff_max=LONGEST_PAUSE,
                retry_after_max=int(LONGEST_PAUSE),
            ),
        )
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
        except JudgeError as error:
            self._breaker.failed(str(error))
            raise
        self._breaker.succeeded()
        return verdict

    def _score(self, question: Mapping[str, str]) -> float:
        limit = time.monotonic() + self._seconds_at_most
        try:
            with self._connections.request(
                "POST", self._url, json=question, headers=self._headers, redirect=False, preload_content=False
            ) as response:
                body = self._body(response, min(limit, time.monotonic() + self._seconds))
        except HTTPError as error:
            raise JudgeError(f"the judge at {self._url} gave no verdict: {error}") from error
        score = _read_score(response.status, body)
        if score is None:
            raise JudgeError(
                f"the judge at {self._url} answered {response.status} {self._shown(body)!r}, expected 200 and "
                '{"score": a number in [0, 1]}'
            )
        return score

    def _body(self, response: BaseHTTPResponse, limit: float) -> bytes:
        """An answer, as far as a score may go. Raises JudgeError where it goes on after `limit`, a monotonic time.

        The limits of the connections are of each piece: an answer that comes byte by byte would keep all of them.
        """
        body = b""
        while len(body) <= BODY_AT_MOST and (piece := response.read1(BODY_AT_MOST + 1 - len(body))):
            body += piece
            if time.monotonic() > limit:
                raise JudgeError(f"the judge at {self._url} gave no verdict: its answer is not whole after its time")
        return body

    def _shown(self, body: bytes) -> bytes:
        """The beginning of an answer, for a log: without the token, which a judge may repeat in what it says."""
        return (body if self._token is None else body.replace(self._token.encode(), b"***"))[:BODY_SHOWN]


class _Retry(Retry):
    """Pauses before the second attempt too, which the base class sends at once; shortened at random by up to half."""

    RETRY_AFTER_STATUS_CODES = frozenset()  # status_forcelist alone says what is sent again

    def get_backoff_time(self) -> float:
        pause = self.backoff_factor * 2.0 ** (len(self.history) - 1)
        return min(self.backoff_max, pause) * random.uniform(0.5, 1.0)


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
