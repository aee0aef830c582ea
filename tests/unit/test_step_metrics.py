"""The numbers of stage 3's log lines, and the records they are made from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.records import GroupRecord, SampleRecord, record_of
from cluster.step_metrics import COLUMNS, batch_metrics, malformed_causes
from configs.schema import Credit, Rewards, RewardWeights
from rewards.mixing import combine
from rewards.parts import PARTS
from rollout.trajectory import FinishReason
from tests.unit import virtual_time
from tests.unit.groups import example_group, example_sample
from tests.unit.test_controller import trial

WEIGHTS = RewardWeights(correctness=2.0, calibration=0.5, format=0.25)
UNDEFINED_WITHOUT_CONFIDENCES = ("confidence", "confidence_sd", "ece", "brier", "resolution", "sabotage")


def parts(correctness: float, calibration: float, form: float) -> dict[str, float]:
    return dict(zip(PARTS, (correctness, calibration, form), strict=True))


def stated(confidence: float, *, right: bool, tokens: int = 10) -> SampleRecord:
    """A well-formed sample under the Brier score."""
    raw = parts(float(right), -((confidence - right) ** 2), 1.0)
    return SampleRecord("a", confidence, None, float(right), raw, tokens, False, ((0, tokens),), None)


def malformed(cause: str = "truncated", tokens: int = 10) -> SampleRecord:
    cut = cause == "truncated"
    return SampleRecord(None, None, cause, None, parts(0.0, -1.0, 0.0), tokens, cut, ((0, tokens),), None)


def unscored(tokens: int = 10) -> SampleRecord:
    return SampleRecord(None, None, None, None, {}, tokens, True, ((0, tokens),), "scorer failed")


def sampled_under(*versions: tuple[int, int]) -> SampleRecord:
    tokens = sum(count for _, count in versions)
    return replace(stated(0.5, right=True, tokens=tokens), token_versions=versions)


def record(*samples: SampleRecord) -> GroupRecord:
    oldest = min(version for sample in samples for version, _ in sample.token_versions)
    return GroupRecord(0, "p0", "a", "rollout-0", oldest, samples, 1.0)


def measured(
    *records: GroupRecord, version: int = 0, weights: RewardWeights = WEIGHTS, rewards: Rewards | None = None
) -> dict[str, float | None]:
    return batch_metrics(records, version, weights, rewards or Rewards())


# Rewards and calibration


def test_the_numbers_of_a_batch_are_those_worked_out_by_hand() -> None:
    batch = [
        record(stated(0.9, right=True, tokens=10), stated(0.9, right=False, tokens=20), malformed(tokens=40)),
        record(stated(0.6, right=True, tokens=30)),
    ]

    found = measured(*batch)

    assert found == pytest.approx(
        {
            # 2 x correct + 0.5 x Brier + 0.25 x format of each: 2.245, -0.155, -0.5 and 2.17
            "reward": 3.76 / 4,
            "part/correctness": 2 / 4,
            "part/calibration": -(0.01 + 0.81 + 1.0 + 0.16) / 4,
            "part/format": 3 / 4,
            "malformed": 1 / 4,
            "accuracy": 2 / 4,  # a malformed response is a wrong one
            "confidence": 2.4 / 3,
            "confidence_sd": math.sqrt((2 * 0.1**2 + 0.2**2) / 3),
            "ece": (abs(1.8 - 1) + abs(0.6 - 1)) / 3,  # the bins of 0.9 and of 0.6
            "brier": (0.01 + 0.81 + 0.16) / 3,
            "confidence_right": (0.9 + 0.6) / 2,
            "confidence_wrong": 0.9,
            "confidence_entropy": math.log(3) - 2 / 3 * math.log(2),  # two thirds state 0.9
            "distinct_confidences": 2.0,
            "reliability": (2 * 0.4**2 + 0.4**2) / 3,
            "resolution": (2 * (1 / 2 - 2 / 3) ** 2 + (1 - 2 / 3) ** 2) / 3,
            "sabotage": 0.0,
            "surely_wrong": 0.0,
            "lag_mean": 0.0,
            "lag_max": 0.0,
            "mixed_version_share": 0.0,
            "truncated": 1 / 4,
            "response_tokens": 100 / 4,
            "generation_seconds": 1.0,
            "unscored": 0.0,
        }
    )


def test_a_sure_wrong_answer_beside_others_that_agree_is_a_suspect() -> None:
    group = record(stated(0.9, right=True), stated(0.9, right=True), replace(stated(0.05, right=False), answer="b"))

    assert measured(group, group)["sabotage"] == pytest.approx(1 / 3)


def test_by_numbers_a_half_written_otherwise_is_no_other_answer() -> None:
    halves = [replace(stated(0.05, right=True), answer=half) for half in ("0.5", "0.5", "1/2")]

    assert measured(record(*halves))["sabotage"] == pytest.approx(1 / 3)
    assert measured(record(*halves), rewards=Rewards(correctness="numeric"))["sabotage"] == 0.0


def test_samples_without_a_score_are_counted_and_change_nothing_else() -> None:
    scored = [stated(0.9, right=True, tokens=50), malformed(tokens=20)]

    with_failures = measured(record(*scored, unscored()), record(unscored()))

    assert with_failures == pytest.approx(measured(record(*scored)) | {"unscored": 2.0})


def test_where_nothing_is_well_formed_what_confidences_would_say_is_undefined() -> None:
    found = measured(record(malformed(), malformed("missing_tag")))

    assert found["reward"] == pytest.approx(-0.5)
    assert found["malformed"] == 1.0
    assert found["accuracy"] == 0.0
    assert [found.get(name) for name in UNDEFINED_WITHOUT_CONFIDENCES] == [None] * len(UNDEFINED_WITHOUT_CONFIDENCES)


def test_where_nothing_is_scored_nothing_is_said_but_that() -> None:
    found = measured(record(unscored(), unscored()))

    assert found["unscored"] == 2.0
    assert found["lag_max"] == 0.0
    names = ("reward", "accuracy", "malformed", "truncated", "response_tokens", *UNDEFINED_WITHOUT_CONFIDENCES)
    assert [found.get(name) for name in names] == [None] * len(names)


RAW = st.tuples(st.sampled_from([0.0, 1.0]), st.floats(-5, 0), st.sampled_from([0.0, 1.0]))
WEIGHT = st.floats(0, 10)


@pytest.mark.parametrize("credit", Credit)
@given(st.lists(RAW, min_size=1, max_size=12), st.builds(RewardWeights, correctness=WEIGHT, calibration=WEIGHT))
def test_the_reward_that_is_logged_is_the_total_that_is_mixed(
    credit: Credit, raw: list[tuple[float, float, float]], weights: RewardWeights
) -> None:
    # a group of one and a group of the others: the mean is over samples, not over groups
    samples = [replace(stated(0.5, right=True) if form else malformed(), parts=parts(r, c, form)) for r, c, form in raw]
    groups = [record(*group) for group in (samples[:1], samples[1:]) if group]

    logged = measured(*groups, weights=weights, rewards=Rewards(credit=credit))["reward"]

    arrays = {name: np.array([sample.parts[name] for sample in samples]) for name in PARTS}
    total = combine(arrays, arrays["format"] == 1, weights, credit).total
    assert logged == pytest.approx(total.mean())


# Policy lag


def test_lag_is_the_mean_over_tokens_and_the_most_of_any_token() -> None:
    batch = [record(sampled_under((7, 10)), sampled_under((5, 6), (6, 4))), record(sampled_under((7, 5)))]

    found = measured(*batch, version=7)

    assert found["lag_mean"] == pytest.approx((2 * 6 + 1 * 4) / 25)
    assert found["lag_max"] == 2.0


def test_responses_that_weights_changed_under_are_told_by_their_share() -> None:
    batch = [record(sampled_under((3, 1), (4, 1)), sampled_under((3, 2))), record(sampled_under((4, 2)))]

    assert measured(*batch, version=4)["mixed_version_share"] == pytest.approx(1 / 3)


# Malformed responses


def test_malformed_responses_are_counted_by_cause() -> None:
    batch = [
        record(malformed("truncated"), malformed("bad_confidence"), stated(0.5, right=True)),
        record(malformed("truncated"), unscored()),
    ]

    assert malformed_causes(batch) == {"truncated": 2, "bad_confidence": 1}


def test_well_formed_responses_have_no_cause() -> None:
    assert malformed_causes([record(stated(0.5, right=True), unscored())]) == {}


# The columns


def test_every_column_shows_a_number_that_the_controller_logs(tmp_path: Path) -> None:
    run = trial(tmp_path)

    virtual_time.run(run.controller.run())

    logged = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert [column.metric for column in COLUMNS if logged.get(column.metric) is None] == []


# Records


def test_a_record_keeps_what_the_group_says_of_each_sample() -> None:
    record = record_of(example_group())

    assert (record.group_id, record.prompt_id, record.target) == (7, "emoji-1", "joy")
    assert (record.worker, record.oldest_version) == ("rollout-0", 3)
    assert record.samples == (
        SampleRecord("joy", 0.75, None, 1.0, {"correctness": 1.0}, 4, False, ((3, 2), (4, 2)), None, 3, 4),
        SampleRecord(None, None, None, None, {}, 4, False, ((3, 2), (4, 2)), "timed out"),
    )


def test_only_samples_with_a_score_are_scored_and_all_have_tokens() -> None:
    record = record_of(example_group())

    assert record.scored == record.samples[:1]
    assert record.response_tokens == 8


def test_generation_lasts_from_the_first_start_to_the_last_end() -> None:
    early, late = replace(example_sample(), started=1.0, finished=4.0), replace(example_sample(), finished=9.5)
    group = example_group()
    first, second = group.trajectories
    both = (replace(first, sample=late), replace(second, sample=early))

    assert record_of(replace(group, trajectories=both)).generation_seconds == 8.5


def test_a_response_that_the_limit_cut_is_truncated() -> None:
    group = example_group()
    cut = replace(group.trajectories[0], sample=replace(example_sample(), finish_reason=FinishReason.LENGTH))

    record = record_of(replace(group, trajectories=(cut, group.trajectories[1])))

    assert [sample.truncated for sample in record.samples] == [True, False]
