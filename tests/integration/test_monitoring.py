"""A log's numbers on their way through Ray's metrics port into a real Prometheus, with our dashboard and alerts."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.gauge_names import DESCRIPTIONS
from cluster.gauges import Phase
from cluster.rollout_actor import RolloutActor
from cluster.run_log import RunLog
from cluster.step_metrics import COLUMNS
from configs.load import load_recipe
from configs.schema import Engine, Precision
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.engine import SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.prompts import Message, Prompt
from rollout.worker import Visit
from tests.integration.prometheus import (
    DEPLOY,
    Prometheus,
    dashboard,
    needs_prometheus,
    soon,
    started_prometheus,
)

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "emoji" / "demo.yaml"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200), needs_prometheus]


@pytest.fixture(scope="module")
def prometheus(
    frequent_exports: None, own_ray: None, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus beside the cluster."""
    discovery = ray_folder / "ray" / "prom_metrics_service_discovery.json"
    with started_prometheus(discovery, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def everything(value: float) -> dict[str, float]:
    """Each metric that is exported, with an example of what its name leaves open."""
    return {re.sub(r"{\w+}", "example", pattern): value for pattern in DESCRIPTIONS if pattern != "step"}


@pytest.fixture(scope="module")
def logged(prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunLog]:
    """A log of some steps, the newest of which Prometheus has."""
    with RunLog(tmp_path_factory.mktemp("run"), "stage3", COLUMNS, load_recipe(DEMO, [])) as log:
        log.phase(Phase.TRAINING)
        for step in (1, 2, 3):
            log.log({**everything(step / 10), "warning/collapse": 1.0}, step)
        soon(lambda: prometheus.up and prometheus.values("ray_caliber_step") == [3.0])
        yield log


def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus, logged: RunLog) -> None:
    for query in dashboard():
        soon(lambda query=query: (found := prometheus.values(query)) and not any(map(math.isnan, found)), query)  # type: ignore[misc]


def test_the_dashboard_can_list_runs_and_stages(prometheus: Prometheus, logged: RunLog) -> None:
    assert prometheus.ask("label/run/values") == ["emoji"]
    assert prometheus.ask("label/stage/values") == ["stage3"]


def test_gauges_stay_between_two_steps(prometheus: Prometheus, logged: RunLog) -> None:
    time.sleep(15.0)  # several times what Ray keeps a gauge for that nobody sets

    soon(lambda: prometheus.values("count_over_time(ray_caliber_reward[8s]) >= 6"))


def test_alerts_are_loaded_and_told_of_what_is_wrong(prometheus: Prometheus, logged: RunLog) -> None:
    def rules() -> dict[str, Any]:
        (group,) = prometheus.ask("rules")["groups"]
        return {rule["name"]: rule for rule in group["rules"]}

    collapse = soon(lambda: (rule := rules()["CaliberCollapse"])["state"] == "firing" and rule)

    (alert,) = collapse["alerts"]
    assert alert["annotations"]["summary"] == "emoji, stage3: one confidence for all answers"
    assert {rule["health"] for rule in rules().values()} == {"ok"}
    assert rules()["CaliberSabotage"]["state"] == "inactive"


def test_a_stage_that_has_ended_is_undefined_beside_one_that_runs(
    prometheus: Prometheus, logged: RunLog, tmp_path: Path
) -> None:
    def losses(stage: str) -> list[float]:
        return prometheus.values(f'ray_caliber_loss{{stage="{stage}"}}')

    with RunLog(tmp_path, "stage1", COLUMNS, load_recipe(DEMO, [])) as log:
        log.log({"loss": 0.25}, 1)
        soon(lambda: losses("stage1") == [0.25])

    soon(lambda: all(map(math.isnan, losses("stage1"))) and losses("stage3") == [pytest.approx(0.3)])


def test_vllms_own_metrics_come_under_each_workers_name(prometheus: Prometheus, tiny_model: Path) -> None:
    settings = Engine(precision=Precision.FP32, threads_per_worker=1, kv_cache_gib=0.25, tokens_per_sequence=256)
    visit = Visit(0, Prompt("p", "t", (Message("user", "?"),)), None, 2, time.time())
    worker = RolloutActor.options(num_cpus=0).remote("rollout-7")

    ray.get(worker.start.remote(EngineSetup(str(tiny_model), settings, ImageLimits(), exported=True)))
    _, group = worker.generate.options(num_returns=2).remote(visit, SamplingSettings(1.0, 8))

    tokens = sum(len(trajectory.sample.tokens) for trajectory in decode_group(ray.get(group)).trajectories)
    counted = 'ray_vllm_generation_tokens_total{model_name="rollout-7"}'
    soon(lambda: sum(prometheus.values(counted)) > tokens)  # some have warmed the engine up
    ray.get(worker.close.remote())
    ray.kill(worker)


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path: Path) -> None:
    trial = (Path(__file__).parent / "alerts_test.yml").read_text(encoding="utf-8")
    (tmp_path / "trial.yml").write_text(trial.replace("PUT_IN_BY_THE_TEST", str(DEPLOY / "alerts.yml")))

    for command, file in (("check", DEPLOY / "alerts.yml"), ("test", tmp_path / "trial.yml")):
        done = subprocess.run(["promtool", command, "rules", str(file)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
