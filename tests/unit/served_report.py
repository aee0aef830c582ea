"""A report that is served while a test looks at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.report.live import LivePage, LiveServer

SECONDS = 120.0  # more than a page takes on a busy machine


@contextmanager
def served(report: LivePage) -> Iterator[LiveServer]:
    with LiveServer(report, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(SECONDS)
