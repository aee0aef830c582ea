"""Tests of cluster.monitors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import islice, pairwise

import pytest

from benchmarks.table_policy import Batch, Policy, batches
from benchmarks.what_mixes_teach import MIXES
from cluster.monitors import APART, WINDOW, Metrics, Monitor
from cluster.records import GroupRecord, SampleRecord
from cluster.step_metrics import batch_metrics
from configs.schema import Rewards, RewardWeights
from rewards.parts import PARTS

PAY_FOR_SABOTAGE = ("jointly, Brier, a = 1, b = 2", "jointly, log, a = 1, b = 2")
TABLE_STEPS = 600  # of 6,000: enough for a policy to learn to answer honestly, and then not to

HEALTHY = {
    "confidence_entropy": math.log(12),
    "confidence": 0.5,
    "sabotage": 0.01,
    "surely_wrong": 0.05,
    "accuracy": 0.6,
    "parity": 0.75 * APART,
}


def told(steps: Sequence[Metrics]) -> list[tuple[int, str]]:
    monitor = Monitor()
    return [(step, text) for step, metrics in enumerate(steps, start=1) for text in monitor.look(metrics, step)]


def test_a_healthy_run_is_told_nothing() -> None:
    assert told([HEALTHY] * 5 * WINDOW) == []


def test_one_confidence_for_all_is_a_collapse_told_once_a_window_with_what_to_change() -> None:
    found = told([HEALTHY] * WINDOW + [HEALTHY | {"confidence_entropy": 0.0, "confidence": 0.55}] * 2 * WINDOW)

    steps = [step for step, _ in found]
    assert WINDOW < steps[0] <= 2 * WINDOW
    assert [later - earlier for earlier, later in pairwise(steps)] == [WINDOW] * (len(steps) - 1)
    assert found[-1][1].startswith(
        f"COLLAPSE: over {WINDOW} steps 1.0 confidences, by their entropy, were in use, around 0.55"
    )
    assert "rl.optimizer.learning_rate" in found[0][1]


@pytest.mark.parametrize(
    ("confidences", "collapsed"),
    [
        ([0.8] * 93 + [0.1, 0.5, 0.9], True),  # of 96 one is more than a hundredth
        ([0.8] * 12 + [0.2] * 4, True),
        ([0.95] * 70 + [0.8] * 15 + [0.6] * 10 + [0.3] * 5, False),  # of a model that is often right
        ([0.2, 0.4, 0.6, 0.8], False),
    ],
)
def test_strays_beside_one_confidence_are_a_collapse_and_an_uneven_use_is_none(
    confidences: list[float], collapsed: bool
) -> None:
    group = GroupRecord(0, "p", "a", "rollout-0", 0, tuple(sample(0, c, 1.0) for c in confidences), 1.0)
    metrics = batch_metrics([group], 0, RewardWeights(), Rewards())

    assert [text.split(":")[0] for _, text in told([metrics] * WINDOW)] == ["COLLAPSE"] * collapsed


def test_one_step_of_few_confidences_is_no_collapse() -> None:
    assert told([HEALTHY] * WINDOW + [HEALTHY | {"confidence_entropy": 0.0}] + [HEALTHY] * WINDOW) == []


def test_more_suspects_and_fewer_right_answers_are_sabotage() -> None:
    found = told([HEALTHY] * WINDOW + [HEALTHY | {"sabotage": 0.3, "accuracy": 0.4}] * WINDOW)

    assert [text.split(":")[0] for _, text in found] == ["SABOTAGE"]
    assert "rewards.credit to apart" in found[0][1]


@pytest.mark.parametrize("mark", ["sabotage", "surely_wrong"])
def test_suspects_without_fewer_right_answers_are_doubt(mark: str) -> None:
    assert told([HEALTHY] * WINDOW + [HEALTHY | {mark: 0.3}] * WINDOW) == []


def test_fewer_right_answers_that_say_it_are_sabotage_though_all_of_a_group_go_wrong_alike() -> None:
    found = told([HEALTHY] * WINDOW + [HEALTHY | {"sabotage": 0.0, "surely_wrong": 0.45, "accuracy": 0.3}] * WINDOW)

    assert [text.split(":")[0] for _, text in found] == ["SABOTAGE"]
    assert "responses with a confidence under 0.1 went from 5.0% to" in found[0][1]


def test_accuracy_that_falls_after_it_rose_is_held_against_its_best() -> None:
    untaught, sabotaged = HEALTHY | {"accuracy": 0.3}, HEALTHY | {"accuracy": 0.4, "surely_wrong": 0.3}

    found = told([untaught] * WINDOW + [HEALTHY] * WINDOW + [sabotaged] * WINDOW)

    assert [text.split(":")[0] for _, text in found] == ["SABOTAGE"]
    assert "accuracy fell from 60.0%" in found[0][1]


def test_fewer_right_answers_that_do_not_say_it_are_no_sabotage() -> None:
    assert told([HEALTHY] * WINDOW + [HEALTHY | {"accuracy": 0.3}] * WINDOW) == []


def batch_of(batch: Batch) -> Metrics:
    """What the log says of a step of the table policy."""
    records = [
        GroupRecord(0, str(prompt), "a", "rollout-0", 0, tuple(map(sample, *of)), 1.0)
        for prompt, of in enumerate(zip(batch.answer, batch.confidence, batch.correct, strict=True))
    ]
    return batch_metrics(records, 0, RewardWeights(), Rewards())


def sample(answer: int, confidence: float, correct: float) -> SampleRecord:
    return SampleRecord("ab"[answer], confidence, None, correct, dict.fromkeys(PARTS, 0.0), 1, False, ((0, 1),), None)


@pytest.mark.parametrize(
    "name", ["apart, Brier", "jointly, Brier, a = b", "the same, divided by the std", *PAY_FOR_SABOTAGE]
)
def test_what_a_mix_teaches_is_called_sabotage_where_it_teaches_that(name: str) -> None:
    settings, _ = MIXES[name]

    found = told([batch_of(batch) for batch in islice(batches(Policy.start(), settings), TABLE_STEPS)])

    assert any(text.startswith("SABOTAGE") for _, text in found) == (name in PAY_FOR_SABOTAGE)


def test_engine_and_learner_apart_are_told_of_at_the_first_step_and_then_once_a_window() -> None:
    found = told([HEALTHY | {"parity": 0.05}] * (WINDOW + 2))

    assert [step for step, _ in found] == [1, WINDOW + 1]
    assert found[0][1].startswith("PARITY: engine and learner are 0.050 nats a token apart under the same weights")
    assert all(name in found[0][1] for name in ("precision", "rl.temperature", "processor"))


def test_drift_is_told_of_when_the_window_shows_it_and_steps_without_fresh_responses_say_nothing() -> None:
    older: Metrics = HEALTHY | {"parity": None}

    found = told([HEALTHY, older] * WINDOW + [HEALTHY | {"parity": 0.5}, older])

    assert [step for step, _ in found] == [2 * WINDOW + 1]
    assert told([older] * WINDOW) == []


def test_a_probe_that_drifts_is_told_of_where_no_response_is_fresh() -> None:
    steady: Metrics = {**HEALTHY, "parity": None, "probe": 1e-6}

    found = told([steady] * WINDOW + [{**steady, "probe": 0.1}] * WINDOW)

    assert [text.partition(":")[0] for _, text in found] == ["PARITY"]
    assert WINDOW < found[0][0] < WINDOW + 8  # the window's mean, not one step's
    assert "on the run's probe (`probe`)" in found[0][1]


@pytest.mark.parametrize(("parity", "probe", "named"), [(0.5, 0.1, "`parity`"), (0.1, 0.5, "`probe`")])
def test_of_two_that_are_apart_the_larger_is_named(parity: float, probe: float, named: str) -> None:
    ((_, text),) = told([HEALTHY | {"parity": parity, "probe": probe}])

    assert "0.500 nats" in text
    assert named in text


def test_where_engine_and_learner_were_never_compared_in_a_window_the_warning_is_not_defined() -> None:
    monitor, states = Monitor(), []
    unseen: Metrics = {**HEALTHY, "parity": None, "probe": None}
    for step, metrics in enumerate([HEALTHY, *[unseen] * WINDOW, {**unseen, "probe": 0.0}]):
        monitor.look(metrics, step)
        states.append(monitor.standing["warning/parity"])

    assert states == [0.0] * WINDOW + [None, 0.0]


def test_a_monitor_that_goes_on_from_its_state_tells_what_one_tells_that_was_never_stopped() -> None:
    collapsed = HEALTHY | {"confidence_entropy": 0.0, "sabotage": 0.3, "accuracy": 0.4, "reward": 1.0}
    steps = [HEALTHY] * (WINDOW + 5) + [collapsed] * 2 * WINDOW
    for stopped_after in (0, 5, WINDOW, WINDOW + 10, 2 * WINDOW + 10):
        first, second, found = Monitor(), Monitor(), []
        for step, metrics in enumerate(steps, start=1):
            if step == stopped_after + 1:
                second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            found += [(step, text) for text in (first if step <= stopped_after else second).look(metrics, step)]

        assert found == told(steps)
    assert len(found) > 2


def test_a_monitor_goes_on_from_a_state_without_a_best_window() -> None:
    first, second = Monitor(), Monitor()
    for step in range(WINDOW):
        first.look(HEALTHY, step)

    second.load_state_dict({name: value for name, value in first.state_dict().items() if name != "best"})

    sabotaged = HEALTHY | {"surely_wrong": 0.9, "accuracy": 0.1}
    assert any(second.look(sabotaged, step) for step in range(WINDOW, 2 * WINDOW))


def test_a_run_that_is_well_formed_only_later_is_watched_from_then_on() -> None:
    silent: Metrics = {"accuracy": 0.0, "sabotage": None}

    assert told([silent] * 2 * WINDOW + [HEALTHY] * 2 * WINDOW) == []
