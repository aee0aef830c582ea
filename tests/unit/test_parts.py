"""Tests of rewards.parts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Preset, Response, Rewards, RewardWeights, ScoringRule
from rewards import parts as module
from rewards.correctness import is_correct
from rewards.parse import Malformed, render
from rewards.parts import PARTS, Judged, Scored, Truth, judge

CANDIDATES = ("negative", "neutral", "positive")
TRUTH = Truth("Positive", CANDIDATES, {})
COUNTED = Truth("positive", CANDIDATES, {"negative": 1, "neutral": 2, "positive": 5})
RESPONSE = Response(reasoning_elements=("element",))
BOUNDED = [rule for rule in ScoringRule if rule is not ScoringRule.UNCLIPPED_LOG]


def judged(text: str, rewards: Rewards, truth: Truth = TRUTH, *, truncated: bool = False) -> Judged:
    return judge(text, truth, RESPONSE, rewards, is_correct, truncated=truncated)


def score(text: str, rule: ScoringRule = ScoringRule.BRIER, *, truncated: bool = False) -> Scored:
    rewards = Rewards(scoring_rule=rule, log_clip=0.05)
    (scored,) = module.score([judged(text, rewards, truncated=truncated)], rewards)
    return scored


def targets(texts: list[str], mix: dict[str, float], truth: Truth = COUNTED) -> list[float | None]:
    rewards = Rewards.model_validate({"target": mix})
    return [scored.target for scored in module.score([judged(text, rewards, truth) for text in texts], rewards)]


def say(answer: str, confidence: str) -> str:
    return render({"element": "a sun"}, answer, confidence)


def test_every_part_has_a_weight_of_the_same_name() -> None:
    assert set(PARTS) == set(RewardWeights.model_fields)


def test_a_right_answer_earns_every_part() -> None:
    scored = score(say("positive", "0.8"))

    assert scored.target == 1.0
    assert scored.parts == pytest.approx({"correctness": 1.0, "calibration": -0.04, "format": 1.0})


def test_a_wrong_answer_still_earns_its_format_and_its_honesty() -> None:
    scored = score(say("neutral", "0.1"))

    assert scored.target == 0.0
    assert scored.parts == pytest.approx({"correctness": 0.0, "calibration": -0.01, "format": 1.0})


def test_the_rule_of_the_settings_scores_the_confidence() -> None:
    assert score(say("positive", "0.5"), ScoringRule.LOG).parts["calibration"] == pytest.approx(math.log(0.5))
    assert score(say("positive", "1"), ScoringRule.LOG).parts["calibration"] == pytest.approx(math.log(0.95))
    assert score(say("positive", "0.5"), ScoringRule.SPHERICAL).parts["calibration"] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("rule", "floor"),
    [(ScoringRule.BRIER, -1.0), (ScoringRule.LOG, math.log(0.05)), (ScoringRule.SPHERICAL, 0.0)],
)
def test_a_malformed_response_gets_the_floor_of_every_part(rule: ScoringRule, floor: float) -> None:
    scored = score(say("positive", "0.8") + ".", rule)

    assert scored.target is None
    assert scored.parts == pytest.approx({"correctness": 0.0, "calibration": floor, "format": 0.0})


def test_a_truncated_response_is_malformed_though_it_reads_well() -> None:
    cut = judged(say("positive", "0.8"), Rewards(), truncated=True)

    assert (cut.parsed.malformed, cut.correct) == (Malformed.TRUNCATED, None)
    assert score(say("positive", "0.8"), truncated=True).parts["format"] == 0.0


@given(
    answer=st.sampled_from(CANDIDATES),
    percent=st.integers(0, 100),
    rule=st.sampled_from(BOUNDED),
)
def test_no_part_of_a_well_formed_response_is_under_that_of_a_malformed_one(
    answer: str, percent: int, rule: ScoringRule
) -> None:
    well_formed = score(say(answer, f"{percent / 100:.2f}"), rule).parts
    malformed = score("", rule).parts

    assert all(well_formed[name] >= malformed[name] for name in PARTS)
    assert well_formed["format"] > malformed["format"]


@pytest.mark.parametrize(("target", "candidates"), [("joy", CANDIDATES), (" ", ())])
def test_a_target_no_answer_can_match_is_refused(target: str, candidates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no answer could be right"):
        judged("", Rewards(), Truth(target, candidates, {}))


def test_against_shares_an_answer_is_as_right_as_many_annotators_gave_it() -> None:
    rewards = Rewards.model_validate({"reference": "shares"})

    found = [judged(say(answer, "0.5"), rewards, COUNTED).correct for answer in CANDIDATES]

    assert found == [0.125, 0.25, 0.625]


def test_a_matcher_that_sees_half_a_match_counts_half_the_annotators() -> None:
    rewards = Rewards.model_validate({"reference": "shares"})

    found = judge(say("neutral", "0.5"), COUNTED, RESPONSE, rewards, lambda answer, reference: 0.5)

    assert found.correct == 0.5


@pytest.mark.parametrize("settings", [{"reference": "shares"}, {"target": {"annotators": 0.5}}])
def test_a_mix_of_shares_over_a_row_without_counts_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the row has no counts"):
        judged(say("positive", "0.8"), Rewards.model_validate(settings))


@pytest.mark.parametrize("nonsense", [math.nan, 1.5, -0.1, math.inf])
def test_a_matcher_that_gives_no_share_is_refused(nonsense: float) -> None:
    with pytest.raises(ValueError, match=r"rewards.correctness gave .*, expected a number in \[0, 1\]"):
        judge(say("positive", "0.8"), TRUTH, RESPONSE, Rewards(), lambda answer, reference: nonsense)


GROUP = [say("positive", "0.8"), say("positive", "0.6"), say("neutral", "0.3"), "malformed"]


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ({"outcome": 1.0}, [1.0, 1.0, 0.0, None]),
        ({"annotators": 1.0}, [0.625, 0.625, 0.25, None]),
        ({"same_answer": 1.0}, [1.0, 1.0, 0.0, None]),
        ({"group": 1.0}, [0.5, 0.5, 0.5, None]),
        ({"outcome": 0.5, "group": 0.5}, [0.75, 0.75, 0.25, None]),
        ({"annotators": 0.2}, [0.925, 0.925, 0.05, None]),
    ],
)
def test_a_confidence_is_scored_against_the_mixture_that_was_asked_for(
    mix: dict[str, float], expected: list[float | None]
) -> None:
    assert targets(GROUP, mix) == pytest.approx(expected)


def test_a_mixture_is_never_more_than_certain() -> None:
    twentieths = [(a, b, c, 20 - a - b - c) for a in range(21) for b in range(21 - a) for c in range(21 - a - b)]
    names = ("outcome", "annotators", "same_answer", "group")
    right = [say("positive", "0.8")] * 3

    for shares in twentieths:
        mix = {name: share / 20 for name, share in zip(names, shares, strict=True)}
        assert targets(right, mix, Truth("positive", CANDIDATES, {"positive": 3})) == pytest.approx([1.0] * 3)


def test_the_share_of_the_same_answer_is_taken_over_those_that_gave_it() -> None:
    verdicts = iter([1.0, 0.0, 1.0, 0.0])  # as a judge that is not sure gives them
    rewards = Rewards.model_validate({"target": {"same_answer": 1.0}})
    group = [say("positive", "0.5"), say(" Positive", "0.5"), say("positive", "0.5"), say("neutral", "0.5")]

    held = [judge(text, TRUTH, RESPONSE, rewards, lambda answer, reference: next(verdicts)) for text in group]

    assert [one.target for one in module.score(held, rewards)] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0.0])


def test_a_group_of_malformed_responses_has_no_targets_and_the_malformed_parts() -> None:
    rewards = Rewards.model_validate({"target": {"same_answer": 0.5}})

    assert [one.target for one in module.score([judged("", rewards)] * 2, rewards)] == [None, None]


def test_a_group_that_lost_all_its_members_has_no_scores() -> None:
    assert module.score([], Rewards()) == []


def test_the_dcpo_preset_gives_the_papers_reward_number_for_number() -> None:
    rewards = Rewards(preset=Preset.DCPO)
    outcomes = [1.0, 1.0, 0.0, 0.0]

    made = module.score([judged(text, rewards, COUNTED) for text in GROUP], rewards)

    for one, correct, confidence in zip(made[:3], outcomes, (0.8, 0.6, 0.3), strict=False):
        assert one.parts["correctness"] == correct
        papers = -0.5 * (0.5 * correct + 0.5 * sum(outcomes) / 4 - confidence) ** 2
        assert rewards.weights.calibration * one.parts["calibration"] == pytest.approx(papers)
