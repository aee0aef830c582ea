"""All three stages as jobs of a cluster of three nodes: each by Ray's own command, stopped and submitted again on the
way, and all by `caliber pipeline --submit`, without a break.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.run_folder import RunFolder, StageFolder
from tests.integration.prometheus import EVERY_SECOND, needs_prometheus, soon, started_prometheus
from tests.integration.ray_nodes import Cluster, started_cluster, until

TINY = "tests/integration/tiny.yaml"
STEPS = {1: 200, 2: 150, 3: 20}
PROMPTS_PER_STEP = 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800), needs_prometheus]


@dataclass(frozen=True)
class Run:
    """A run by its name."""

    name: str
    folder: Path
    cluster: Cluster

    def stage(self, number: int) -> StageFolder:
        return RunFolder(self.folder / self.name).stage(number)

    def submit(self, number: int, *options: str) -> None:
        """A stage with Ray's own command, waited for unless `options` say otherwise."""
        what = ("rl", TINY) if number == 3 else ("sft", TINY, "--stage", str(number))
        time_to_stop = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}})
        self.cluster.ray_job(
            *("submit", *options, "--working-dir=.", f"--runtime-env-json={time_to_stop}"),
            *("--", "python", "-m", "cluster", *what, *self.settings),
        )

    def submit_all(self) -> str:
        """All stages that are not finished with our own command; what it says."""
        return self.cluster.run("cluster", "pipeline", TINY, "--submit", *self.settings).stdout

    @property
    def settings(self) -> list[str]:
        return [
            *(f"name={self.name}", f"output={self.folder / self.name}", f"data.root={self.folder}/data"),
            *(f"rl.steps={STEPS[3]}", f"stage1.steps={STEPS[1]}", "stage1.log_every_steps=1"),
            *("stage1.checkpoint_every_steps=1000", "rl.checkpoint_every_steps=1000"),
        ]

    def submit_and_stop(self, number: int, after: int) -> None:
        """A stage that is told to stop when it has taken some steps."""
        job = f"{self.name}-{number}"
        self.submit(number, "--no-wait", f"--submission-id={job}")
        until(lambda: len(self.steps(number)) >= after, f"step {after} of {job}")
        told = time.monotonic()
        self.cluster.ray_job("stop", job)  # comes back when it has ended
        print(f"\nMEASURED stage {number} told to stop: ended in {time.monotonic() - told:.1f} s", flush=True)
        assert f"stage {number} stopped after step " in self.cluster.ray_job("logs", job)
        assert not self.stage(number).model.exists()

    def lines(self, number: int) -> list[dict[str, Any]]:
        file = self.stage(number).path / "log.jsonl"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def steps(self, number: int) -> list[int]:
        return [line["step"] for line in self.lines(number)]

    def ledger(self) -> dict[str, Any]:
        """As the last checkpoint has it."""
        folder = CheckpointFolder(self.stage(3).checkpoints, 2)
        return folder.read(folder.newest_first()[0]).state["ledger"]


def test_a_run_that_was_stopped_twice_ends_with_the_ledger_of_one_that_was_not(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with (
        started_cluster(tmp_path_factory.mktemp("r"), nodes=3, cpus=2, settings=EVERY_SECOND) as cluster,
        started_prometheus(cluster.discovery, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        stopped, whole = Run("stopped", tmp_path, cluster), Run("whole", tmp_path, cluster)

        stopped.submit_and_stop(1, after=3)
        for number in (1, 2):
            stopped.submit(number)
        stopped.submit_and_stop(3, after=3)
        stopped.submit(3)
        whole.submit_all()
        again = whole.submit_all()

        expected = {
            "admitted": STEPS[3] * PROMPTS_PER_STEP,
            "last_step": STEPS[3] - 1,
            "outstanding": [],
            "dropped": [],
        }
        assert again.splitlines() == [f"stage {number} is finished" for number in STEPS]
        for run in (stopped, whole):
            assert run.ledger() == expected
            assert run.steps(1) == list(range(1, STEPS[1] + 1))
            assert run.steps(3) == list(range(1, STEPS[3] + 1))
            assert all(math.isfinite(line["loss"]) for number in STEPS for line in run.lines(number))
            for number in STEPS:
                series = f'max(max_over_time(ray_caliber_step{{run="{run.name}", stage="stage{number}"}}[1h]))'
                (last,) = soon(lambda series=series: prometheus.values(series))  # type: ignore[misc]
                assert last in run.steps(number)  # the last one may be gone before Prometheus looks
