"""Stage 3's controller on the real Ray, with engines that fail, die and are slow."""

from __future__ import annotations

import asyncio
import json

import pytest

from benchmarks.simulated_cluster import Fleet
from benchmarks.stage3_run import ANSWERS, SAMPLES, Run, Settings, Stage3
from cluster.checkpoints import CheckpointFolder
from rollout.simulated import Simulation

pytestmark = pytest.mark.integration

LAG, GROUPS = 2, 16
UNRELIABLE = Simulation(seconds_per_token=0.0005, failure_probability=0.003, death_probability=0.005)
SETTINGS = Settings(
    Fleet(32, UNRELIABLE, ANSWERS, slow_every=8), prompts_per_step=GROUPS, max_policy_lag=LAG, steps=12, warm_up_steps=1
)


def test_engines_that_fail_die_and_are_slow_cost_no_group_and_no_staleness(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("r")

    async def job() -> Run:
        async with Stage3.started(folder, raylets=1, hosts=2, reward_workers=1) as stage3:
            return await stage3.run(SETTINGS)

    run = asyncio.run(job())

    checkpoints = CheckpointFolder(folder / "run-0" / "checkpoints", 1)
    checkpoint = checkpoints.read(checkpoints.newest_first()[0])
    ledger = checkpoint.state["ledger"]
    log = [json.loads(line) for line in (folder / "run-0" / "log.jsonl").read_text().splitlines()]
    assert run.trajectories == 12 * GROUPS * SAMPLES
    assert run.counts["worker_restarts"] > 0
    assert ledger["admitted"] - len(ledger["outstanding"]) - len(ledger["dropped"]) == checkpoint.step * GROUPS
    assert max(line["lag_max"] for line in log) <= LAG
    assert {line["malformed"] for line in log} == {0.0}
