"""Times and counts between two lines of stage 3's log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clocks:
    """Times and counts between two log lines."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._active = 0
        self._idle_since: float | None = self._since
        self._idle = 0.0
        self._tokens = 0
        self._update_seconds = 0.0
        self._in_flight_at_update = 0
        self._update_bytes = 0

    @contextmanager
    def visit(self) -> Iterator[None]:
        """A prompt is with the workers."""
        if self._idle_since is not None:
            self._idle += time.perf_counter() - self._idle_since
            self._idle_since = None
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            if self._active == 0:
                self._idle_since = time.perf_counter()

    def rolled(self, tokens: int) -> None:
        """A group is complete."""
        self._tokens += tokens

    def updated(self, seconds: float, in_flight: int, nbytes: int) -> None:
        """All workers hold new weights, for which each took so many bytes."""
        self._update_seconds = seconds
        self._in_flight_at_update = in_flight
        self._update_bytes = nbytes

    def read(self) -> dict[str, float]:
        """What passed since the last reading, in seconds, tokens a second and visits."""
        now = time.perf_counter()
        if self._idle_since is not None:
            self._idle += now - self._idle_since
            self._idle_since = now
        elapsed = now - self._since
        found = {
            "step_seconds": elapsed,
            "rollout_tokens_per_second": self._tokens / elapsed,
            "rollout_wait_seconds": self._idle,
            "update_seconds": self._update_seconds,
            "update_megabytes": self._update_bytes / 1e6,
            "in_flight_at_update": float(self._in_flight_at_update),
        }
        self._since, self._idle, self._tokens = now, 0.0, 0
        return found
