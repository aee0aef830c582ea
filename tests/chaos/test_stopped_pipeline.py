"""All three stages as jobs of a cluster of three nodes: each by Ray's own command, stopped and submitted again on the
way, and all by `caliber pipeline --submit`, without a break.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.run_folder import RunFolder, StageFolder
from tests.chaos.job import LEARNER, processes, standing
from tests.integration.prometheus import FREQUENT_EXPORTS, Prometheus, needs_prometheus, started_prometheus
from tests.integration.ray_nodes import Cluster, started_cluster, until

TINY = "tests/integration/tiny.yaml"
STEPS = {1: 200, 2: 150, 3: 30}
LEARNERS = {1: "ray::SftActor", 2: "ray::SftActor", 3: LEARNER}
PROMPTS_PER_STEP = 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3000), needs_prometheus]


@dataclass(frozen=True)
class Run:
    """A run by its name."""

    name: str
    folder: Path
    cluster: Cluster
    prometheus: Prometheus

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
        with self.held(number, after):
            self.cluster.ray_job("stop", "--no-wait", job)
        told = time.monotonic()
        self.cluster.ray_job("stop", job)  # comes back when it has ended
        print(f"\nMEASURED stage {number} told to stop: ended in {time.monotonic() - told:.1f} s", flush=True)
        assert f"stage {number} stopped after step " in self.cluster.ray_job("logs", job)
        assert not self.stage(number).model.exists()

    def submit_and_hold(self, submit: Callable[[], object], *numbers: int) -> None:
        """Stages that `submit` gives and waits for, each held once."""
        with ThreadPoolExecutor(1) as beside:
            submitted = beside.submit(submit)
            for number in numbers:
                with self.held(number, 1, submitted.done):
                    pass
            submitted.result()

    @contextmanager
    def held(self, number: int, after: int, ended: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Within the block a stage that has taken some steps stands still, and Prometheus has one of them.

        Left alone it might have ended before Prometheus looks, or before a command of Ray's has started.
        """
        until(lambda: ended() or len(self.steps(number)) >= after, f"step {after} of {self.name}, stage {number}")
        ranks = processes(LEARNERS[number])  # and not the driver, which goes on telling Prometheus
        assert ranks or ended()
        with standing(ranks):
            until(lambda: ended() or bool(self.exported(number)), f"a sample of {self.name}, stage {number}")
            yield

    def exported(self, number: int) -> list[float]:
        """The last step of a stage that Prometheus has, if any."""
        steps = f'ray_caliber_step{{run="{self.name}", stage="stage{number}"}}'
        return self.prometheus.values(f"max(max_over_time({steps}[1h]))")

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
        started_cluster(tmp_path_factory.mktemp("r"), nodes=3, cpus=2, settings=FREQUENT_EXPORTS) as cluster,
        started_prometheus(cluster.discovery, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        stopped, whole = (Run(name, tmp_path, cluster, prometheus) for name in ("stopped", "whole"))

        stopped.submit_and_stop(1, after=3)
        stopped.submit(1)
        stopped.submit_and_hold(lambda: stopped.submit(2), 2)
        stopped.submit_and_stop(3, after=3)
        stopped.submit(3)
        whole.submit_and_hold(whole.submit_all, *STEPS)
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
                (last,) = run.exported(number)
                assert last in run.steps(number)  # the last one may be gone before Prometheus looks
