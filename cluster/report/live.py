"""A report that follows a running job, served on this machine alone."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cluster.report.page import page
from cluster.report.run_data import read_run

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_SECONDS = 10.0  # that a connection may say nothing
_AT_ONCE = 16  # connections; a browser opens up to six
_SHARE = 0.1  # of a core's time that making pages may take: the job needs it more

_READ = (  # what a report is made of, in a run's folder
    "recipe.yaml",
    "stage*/log.jsonl",
    "stage*/evaluation/*/*.json*",
    "stage3/rollouts/*.rollouts",
    "stage3/checkpoints/*/state.json",
    "stage3/reward_weights.json",
)


class LivePage:
    """The report's text, made anew where the runs' files have changed."""

    def __init__(self, runs: Sequence[Path], rollouts: int) -> None:
        self._runs = runs
        self._rollouts = rollouts
        self._lock = threading.Lock()  # one at a time makes the page
        self._stamp = ""
        self._text = b""
        self._not_before = 0.0

    def version(self) -> str:
        """Names what the files hold by now; soon after a page was made, what it was made of."""
        if time.monotonic() < self._not_before:
            return self._stamp
        return _stamp(self._runs)

    def text(self) -> bytes:
        """The page. Raises what `read_run` raises."""
        with self._lock:
            if (stamp := self.version()) != self._stamp:
                started = time.monotonic()
                self._text = page([read_run(run) for run in self._runs], self._rollouts, live=True).encode()
                self._stamp, ended = stamp, time.monotonic()
                self._not_before = ended + (ended - started) * (1 / _SHARE - 1)
            return self._text


class LiveServer(ThreadingHTTPServer):
    """Answers `GET /` with the page and `GET /version`; every other request is refused."""

    daemon_threads = True

    def __init__(self, report: LivePage, port: int) -> None:
        """`port` 0 takes a free one. Raises ValueError for a port that is taken, or is none."""
        self.report = report
        self.places = threading.BoundedSemaphore(_AT_ONCE)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(f"got --port {port}, but {error}; --port 0 takes a free one") from error

    @property
    def address(self) -> str:
        """What to open."""
        return f"http://{LOOPBACK}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    """One connection, one answer."""

    server: LiveServer
    timeout = _SECONDS

    def handle(self) -> None:
        if not self.server.places.acquire(blocking=False):
            return  # too many: this one is closed
        try:
            super().handle()
        finally:
            self.server.places.release()

    def do_GET(self) -> None:
        # A page of elsewhere can have its own name resolve to this machine; then that name is the host.
        port = self.server.server_port
        if self.headers.get("Host") not in {f"{name}:{port}" for name in (LOOPBACK, "localhost")}:
            self.send_error(
                HTTPStatus.FORBIDDEN,
                explain=f"This is served as localhost:{port} alone. Through a tunnel, forward the same port: "
                f"ssh -L {port}:localhost:{port} HOST",
            )
        elif self.path == "/version":
            self._answer("text/plain", self.server.report.version().encode())
        elif self.path == "/":
            self._page()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self) -> None:
        try:
            text = self.server.report.text()
        except (ValueError, OSError) as error:  # files that are not whole, or gone
            logger.warning("no page: %s", error)
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "The run cannot be read; the server's output says why")
        else:
            self._answer("text/html; charset=utf-8", text)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line each request would bury what matters."""


def _stamp(runs: Sequence[Path]) -> str:
    """A digest of the names, sizes and times of all that a report reads."""
    files = sorted(file for run in runs for pattern in _READ for file in run.glob(pattern))
    told = hashlib.sha256()
    for file in files:
        try:
            found = file.stat()
        except FileNotFoundError:  # a checkpoint that went while we looked
            continue
        told.update(f"{file} {found.st_size} {found.st_mtime_ns}\n".encode())
    return told.hexdigest()[:16]
