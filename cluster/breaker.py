"""A circuit breaker: what fails again and again is left alone for a while, and then tried once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class CircuitBreaker:
    """Closed at first. Opens after so many failures in a row; every `seconds` it then lets one through, as a trial.

    Safe to use from several threads.
    """

    def __init__(self, what: str, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0  # since the last success
        self._next: float | None = None  # when the next trial is let through; None: closed

    def lets_through(self) -> bool:
        """Whether to go on; whoever was told so says afterwards how it went."""
        with self._lock:
            if self._next is None:
                return True
            if self._clock() < self._next:
                return False
            self._next = self._clock() + self._seconds
            return True

    def succeeded(self) -> None:
        """It went well: closed from here on."""
        with self._lock:
            if self._next is not None:
                logger.warning("%s works again", self._what)
            self._failures, self._next = 0, None

    def failed(self, cause: str) -> None:
        """It went wrong; the cause is logged where that opens the circuit."""
        with self._lock:
            self._failures += 1
            if self._failures < self._limit:
                return
            if self._next is None:
                logger.error(
                    "%s failed %d times in a row and is left alone, but for a trial every %g s: %s",
                    self._what,
                    self._failures,
                    self._seconds,
                    cause,
                )
            self._next = self._clock() + self._seconds
