"""What the processes of a local Ray cluster take: time on a core, by kind of process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import psutil  # deepspeed and peft need it, so it is there

RAY = "ray"  # its own processes: raylets, the control store, agents, idle workers
_KINDS = {"ray::RewardWorker": "reward", "ray::SimulatedHost": "rollout", "ray::SimulatedLearner": "learner"}
_MIB = 2**20


def cpu_seconds() -> Mapping[str, float]:
    """Seconds on a core since their start of this process, the driver, and all it has started, by kind."""
    driver = psutil.Process()
    spent = defaultdict(float, {"driver": _seconds(driver)})
    for process in driver.children(recursive=True):
        try:
            spent[_kind(process)] += _seconds(process)
        except psutil.NoSuchProcess:
            continue
    return spent


def driver_mib() -> float:
    """Resident memory of this process, MiB."""
    return psutil.Process().memory_info().rss / _MIB


def _kind(process: psutil.Process) -> str:
    title = " ".join(process.cmdline())
    return next((kind for start, kind in _KINDS.items() if title.startswith(start)), RAY)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
