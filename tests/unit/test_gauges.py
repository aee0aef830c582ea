"""Names of gauges, what dashboard and alerts make of them, and how they follow the log. Ray itself is not started."""

from __future__ import annotations

import json
import math
import re
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import cluster.gauges
from cluster.gauge_names import DESCRIPTIONS, gauge_name, gauge_of
from cluster.gauges import Gauges, Phase
from cluster.monitors import WINDOW, Monitor
from cluster.run_log import RunLog
from cluster.sft_columns import SFT_COLUMNS
from cluster.stopped import Stopped
from configs.load import load_recipe
from learner.ledger import DropReason
from tests.unit import virtual_time
from tests.unit.test_controller import trial

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
COMMON = {"run", "stage"}

# Names


def test_every_number_of_stage_3s_log_is_exported(tmp_path: Path) -> None:
    run = trial(tmp_path)

    virtual_time.run(run.controller.run())

    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line if gauge_of(name) is None} == set()


def test_every_number_of_an_sft_stages_log_is_exported() -> None:
    assert [column.metric for column in SFT_COLUMNS if gauge_of(column.metric) is None] == []


def test_every_warning_is_exported_as_long_as_there_is_reason_for_it() -> None:
    monitor = Monitor()
    for step in range(WINDOW):
        seen = {"confidence_entropy": 0.0, "confidence": 0.5, "sabotage": 0.0, "accuracy": 0.5, "probe": 0.0}
        monitor.look(seen, step)

    assert monitor.standing == {"warning/collapse": 1.0, "warning/sabotage": 0.0, "warning/parity": 0.0}
    assert [name for name in monitor.standing if gauge_of(name) is None] == []


@pytest.mark.parametrize(
    ("metric", "gauge", "tags"),
    [
        ("ece", "caliber_ece", {}),
        ("confidence_tokens/mismatch", "caliber_confidence_tokens_mismatch", {}),
        ("malformed", "caliber_malformed", {}),
        ("malformed/missing_tag", "caliber_malformed_by_cause", {"cause": "missing_tag"}),
        ("lag/3-4/ece", "caliber_lag_ece", {"versions": "3-4"}),
        ("worker/reward-0/groups", "caliber_worker_groups", {"worker": "reward-0"}),
    ],
)
def test_what_varies_in_a_metrics_name_is_a_tag_of_its_gauge(metric: str, gauge: str, tags: dict[str, str]) -> None:
    named = gauge_of(metric)

    assert named is not None
    assert (named.gauge, named.tags) == (gauge, tags)


def test_no_two_metrics_share_a_gauge_and_prometheus_takes_every_name() -> None:
    names = Counter(map(gauge_name, DESCRIPTIONS))

    assert [name for name, uses in names.items() if uses > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z_][a-z0-9_]*", name)] == []


# Dashboard and alerts

TAGS = {f"ray_{gauge_name(pattern)}": COMMON | set(re.findall(r"{(\w+)}", pattern)) for pattern in DESCRIPTIONS}


def queries() -> Iterator[str]:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", ()))
    yield from (variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query")


def alerts() -> Iterator[str]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    yield from (rule["expr"] for rule in group["rules"])


@pytest.mark.parametrize("expression", [*queries(), *alerts()])
def test_dashboard_and_alerts_ask_for_gauges_and_tags_that_there_are(expression: str) -> None:
    found = re.findall(r"\b(ray_\w+)(?:{([^}]*)})?", expression)
    tags = {tag.strip() for listed in re.findall(r"by \(([^)]*)\)", expression) for tag in listed.split(",")}

    assert found
    assert [name for name, _ in found if name not in TAGS] == []
    assert tags <= set.intersection(*(TAGS[name] for name, _ in found))
    assert [(name, tag) for name, of in found for tag in re.findall(r"(\w+)=~?\"", of) if tag not in TAGS[name]] == []


def test_the_dashboard_shows_every_gauge_but_those_that_say_less_than_others() -> None:
    shown = {name for query in queries() for name in re.findall(r"\bray_\w+", query)}

    left_out = {name.removeprefix("ray_caliber_") for name in TAGS.keys() - shown}
    assert {name for name in left_out if not name.startswith(("lag_", "running_", "finished_", "dropped_"))} == {
        "confidence_tokens_behaviour_kl",
        "confidence_tokens_capped_share",
        "confidence_tokens_masked_share",
        "engine_groups",
        "in_flight_at_update",
        "stale_wait_groups",
    }


def test_alerts_on_drops_name_reasons_that_there_are() -> None:
    reasons = re.findall(r'reason=~?"([^"]+)"', " ".join(alerts()))

    assert {one for reason in reasons for one in reason.split("|")} <= {str(reason) for reason in DropReason}


# How they follow the log


Values = dict[str, dict[tuple[str, ...], float]]  # of gauges, by their tags


@dataclass
class FakeGauge:
    """Keeps what it was set to last, by its tags; all of one name are one."""

    name: str
    description: str
    tag_keys: Sequence[str]
    values: Values

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.values.setdefault(self.name, {})[tuple(tags.values())] = value


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch, ray_has: Values) -> None:
    """Gauges are set all the time."""
    monkeypatch.setattr(cluster.gauges, "SECONDS_BETWEEN_SETTINGS", 0.001)


@pytest.fixture
def ray_has(monkeypatch: pytest.MonkeyPatch) -> Values:
    """What the gauges were set to last."""
    values: Values = {}
    monkeypatch.setattr(cluster.gauges, "Gauge", lambda *given: FakeGauge(*given, values))
    monkeypatch.setattr(cluster.gauges, "SECONDS_BETWEEN_SETTINGS", 600.0)  # the tests set them themselves
    return values


def test_a_line_of_the_log_is_set_with_its_run_and_stage(ray_has: Values) -> None:
    gauges = Gauges("emoji", "stage3")

    gauges.line({"reward": 0.5, "part/format": 1.0, "nobody knows": 3.0})
    gauges._set()

    assert ray_has == {
        "caliber_reward": {("emoji", "stage3"): 0.5},
        "caliber_part_by_name": {("emoji", "stage3", "format"): 1.0},
    }
    gauges.close()


def test_gauges_are_set_again_and_again_as_ray_may_have_forgotten_them(ray_has: Values, again: None) -> None:
    gauges = Gauges("emoji", "stage3")
    gauges.line({"reward": 0.5})

    for _ in range(3):
        ray_has.clear()
        while not ray_has:  # ended by the test's time limit
            time.sleep(0.001)

    gauges.close()


def test_what_a_line_does_not_say_is_undefined(ray_has: Values) -> None:
    gauges = Gauges("emoji", "stage3")
    gauges.phase(Phase.TRAINING)
    gauges.line({"parity": 0.1, "malformed/missing_tag": 2.0, "reward": 0.5})

    gauges.line({"parity": None, "reward": 0.6})
    gauges._set()

    assert math.isnan(ray_has["caliber_parity"]["emoji", "stage3"])
    assert math.isnan(ray_has["caliber_malformed_by_cause"]["emoji", "stage3", "missing_tag"])
    assert ray_has["caliber_reward"]["emoji", "stage3"] == 0.6
    assert ray_has["caliber_phase_by_name"]["emoji", "stage3", "training"] == 1.0
    gauges.close()


def test_a_stage_that_has_ended_says_nothing_more(ray_has: Values) -> None:
    gauges = Gauges("emoji", "stage3")
    gauges.phase(Phase.SAVING)
    gauges.line({"reward": 0.5})

    gauges.close()

    assert {math.isnan(value) for of in ray_has.values() for value in of.values()} == {True}
    assert not gauges._thread.is_alive()


@pytest.mark.parametrize(
    "error, failed", [(None, False), (Stopped("at step 1"), False), (CancelledError(), False), (OSError("disk"), True)]
)
def test_of_a_stage_that_fails_this_remains(
    tmp_path: Path, ray_has: Values, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, failed: bool
) -> None:
    monkeypatch.setattr("cluster.run_log.ray.is_initialized", lambda: True)

    recipe = load_recipe(ROOT / "configs" / "emoji" / "demo.yaml")

    with suppress(Stopped, CancelledError, OSError), RunLog(tmp_path, "stage3", SFT_COLUMNS, recipe) as log:
        log.phase(Phase.TRAINING)
        log.log({"loss": 0.5}, 1)
        if error is not None:
            raise error

    remaining = {(name, *tags): v for name, of in ray_has.items() for tags, v in of.items() if not math.isnan(v)}
    assert remaining == ({("caliber_phase_by_name", "emoji", "stage3", "failed"): 1.0} if failed else {})


def test_a_log_without_ray_sets_no_gauges(tmp_path: Path, ray_has: Values) -> None:
    with RunLog(tmp_path, "stage1", SFT_COLUMNS, load_recipe(ROOT / "configs" / "emoji" / "demo.yaml")) as log:
        log.phase(Phase.TRAINING)
        log.log({"loss": 0.5}, 1)

    assert ray_has == {}
