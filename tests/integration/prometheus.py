"""A real Prometheus. Needs the binary `prometheus`, which Debian's package of that name brings, with `promtool`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3
import yaml

DEPLOY = Path(__file__).parents[2] / "cluster" / "deploy"
# Ray forgets a gauge that is not set between two exports: of two seconds, each has a setting of ours in it.
FREQUENT_EXPORTS = {"RAY_metrics_report_interval_ms": "2000"}
SECONDS = 300.0  # for what takes a few

HAVE_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None
needs_prometheus = pytest.mark.skipif(
    not HAVE_PROMETHEUS,
    reason="no prometheus and promtool in PATH (Debian: apt-get install prometheus)",
)

T = TypeVar("T")


def soon(look: Callable[[], T], what: str = "what is looked for") -> T:
    """What `look` finds, as soon as it is anything."""
    until = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < until, f"{what}: nothing in {SECONDS:.0f} s"
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    @property
    def up(self) -> bool:
        """Whether it answers."""
        try:
            return urllib3.request("GET", f"{self.url}/-/ready", timeout=10.0, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, path: str, **fields: str) -> Any:
        """What an API answers; a query that is wrong fails here."""
        answer = urllib3.request("GET", f"{self.url}/api/v1/{path}", fields=fields, timeout=10.0).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """The value of each series of an expression now."""
        return [float(series["value"][1]) for series in self.ask("query", query=expression)["result"]]


def dashboard() -> list[str]:
    """The queries of our dashboard, its variables at "All"."""
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [re.sub(r"\$(run|stage)", ".*", expression) for expression in found]


@contextmanager
def started_prometheus(discovery: Path, folder: Path, seconds: int = 1) -> Iterator[Prometheus]:
    """One that finds Ray's nodes as docs/monitoring.md says, asks them every so often, and has our alerts."""
    nodes = {"job_name": "ray", "file_sd_configs": [{"files": [str(discovery)], "refresh_interval": "1s"}]}
    config = {
        "global": {"scrape_interval": f"{seconds}s", "evaluation_interval": f"{seconds}s"},
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "scrape_configs": [nodes],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder, "web.listen-address": address}
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())], stdout=output, stderr=output
        )
    try:
        yield Prometheus(f"http://{address}")
    finally:
        server.terminate()
        server.wait(300)
