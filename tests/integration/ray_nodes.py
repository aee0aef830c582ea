"""A Ray cluster as people start one, with a token: nodes of it on this machine, each by `ray start`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
NODE_PORTS = (
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--node-manager-port",
    "--object-manager-port",
)
HEAD_PORTS = ("--port", "--dashboard-port", "--ray-client-server-port", *NODE_PORTS)


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the environment in which commands reach it."""

    environment: dict[str, str]
    discovery: Path  # where Prometheus finds its nodes

    def run(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command, given in the checkout."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def ray_job(self, *words: str) -> str:
        """What `ray job …` says."""
        return self.run("ray.scripts.scripts", "job", *words).stdout


@contextmanager
def started_cluster(
    folder: Path, *, nodes: int, cpus: int, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """So many nodes with so many CPUs each, on ports and in a folder of their own; ended with all that they started.

    `settings` are Ray's own, by their variables' names.
    """
    ports = dict(zip(HEAD_PORTS, _free_ports(len(HEAD_PORTS)), strict=True))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        **(settings or {}),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the jobs' python
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['--dashboard-port']}",
    }
    cluster = Cluster(environment, folder / "prom_metrics_service_discovery.json")

    def jobs() -> bool:
        return cluster.run("ray.scripts.scripts", "job", "list", check=False).returncode == 0

    with ExitStack() as started:
        head = ("--head", f"--temp-dir={folder}")
        started.enter_context(_node(folder / "head.log", environment, cpus, ports, head))
        until(jobs, "the cluster")
        for number in range(1, nodes):
            own = dict(zip(NODE_PORTS, _free_ports(len(NODE_PORTS)), strict=True))
            address = (f"--address=127.0.0.1:{ports['--port']}",)
            log = folder / f"node-{number}.log"
            started.enter_context(_node(log, environment, cpus, own, address))
            # One by one: two that start at once on one machine take each other's raylet for theirs.
            until(lambda log=log: "Ray runtime started" in log.read_text(), f"node {number}")  # type: ignore[misc]
        yield cluster


@contextmanager
def _node(
    log: Path, environment: Mapping[str, str], cpus: int, ports: Mapping[str, int], words: tuple[str, ...]
) -> Iterator[None]:
    common = ["start", "--block", f"--num-cpus={cpus}", "--disable-usage-stats"]
    with log.open("w") as output:
        node = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts"),
                *(*common, *words, *(f"{name}={port}" for name, port in ports.items())),
            ],
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process = psutil.Process(node.pid)
            started = [process, *process.children(recursive=True)]
            node.send_signal(signal.SIGTERM)  # upon which it ends what it started
            _, alive = psutil.wait_procs(started, timeout=30)
            for process in alive:
                with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    process.kill()


def until(true: Callable[[], bool], what: str, seconds: float = 900.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(number)]
        for probe in sockets:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in sockets]
