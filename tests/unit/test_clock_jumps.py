"""Clocks that are set while a job runs: durations and limits are measured by those that nobody sets."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import pytest

from tests.unit import virtual_time
from tests.unit.test_controller import trial

ROOT = Path(__file__).parents[2]
FOLDERS = ("cluster", "configs", "learner", "rewards", "rollout")
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
# Who tells at what moment something was; nobody waits or gives up by it.
TELLING = {
    "cluster/job_book.py": "when a job began what it does",
    "cluster/sampling.py": "when a group was asked for",
    "cluster/status.py": "how long ago a file was written",
    "cluster/visits.py": "when a group was admitted",
    "rollout/simulated.py": "when a simulated response was",
    "rollout/vllm_engine.py": "when a response began",
}


def reads_the_clock(file: Path) -> bool:
    """Whether it asks for the time of day."""
    calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return not CLOCKS.isdisjoint(ast.unparse(call.func) for call in calls)


def test_only_what_tells_the_time_asks_for_it() -> None:
    files = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))

    assert {file.relative_to(ROOT).as_posix() for file in files if reads_the_clock(file)} == TELLING.keys()


def test_a_run_whose_clock_jumps_to_and_fro_is_a_run_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = trial(tmp_path / "calm", lag=2)
    virtual_time.run(calm.controller.run())
    jumps = itertools.cycle([0.0, 86400.0, -86400.0])
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))

    jumpy = trial(tmp_path / "jumpy", lag=2)
    virtual_time.run(jumpy.controller.run())

    assert jumpy.learners.trained == calm.learners.trained
    assert jumpy.ledger == calm.ledger
    for name in ("step_seconds", "learner_wait_seconds", "rollout_wait_seconds", "update_seconds"):
        assert all(0 <= seconds < 3600 for seconds in jumpy.logged(name))
