"""Tests of rewards.parts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Response, Rewards, RewardWeights, ScoringRule
from rewards.parse import Malformed, render
from rewards.parts import PARTS, ScoredResponse, score_response

CANDIDATES = ("negative", "neutral", "positive")
RESPONSE = Response(reasoning_elements=("element",))


def score(text: str, rule: ScoringRule = ScoringRule.BRIER, *, truncated: bool = False) -> ScoredResponse:
    return score_response(
        text,
        truncated=truncated,
        target="Positive",
        candidates=CANDIDATES,
        response=RESPONSE,
        rewards=Rewards(scoring_rule=rule, log_clip=0.05),
    )


def say(answer: str, confidence: str) -> str:
    return render({"element": "a sun"}, answer, confidence)


def test_every_part_has_a_weight_of_the_same_name() -> None:
    assert set(PARTS) == set(RewardWeights.model_fields)


def test_a_right_answer_earns_every_part() -> None:
    scored = score(say("positive", "0.8"))

    assert scored.correct == 1.0
    assert scored.parsed.answer == "positive"
    assert scored.parts == pytest.approx({"correctness": 1.0, "calibration": -0.04, "format": 1.0})


def test_a_wrong_answer_still_earns_its_format_and_its_honesty() -> None:
    scored = score(say("neutral", "0.1"))

    assert scored.correct == 0.0
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

    assert scored.parsed.malformed is Malformed.TEXT_OUTSIDE_TAGS
    assert scored.correct is None
    assert scored.parts == pytest.approx({"correctness": 0.0, "calibration": floor, "format": 0.0})


def test_a_truncated_response_is_malformed_though_it_reads_well() -> None:
    scored = score(say("positive", "0.8"), truncated=True)

    assert scored.parsed.malformed is Malformed.TRUNCATED
    assert scored.parts["format"] == 0.0


@given(
    answer=st.sampled_from(CANDIDATES),
    percent=st.integers(0, 100),
    rule=st.sampled_from(ScoringRule),
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
        score_response("", truncated=False, target=target, candidates=candidates, response=RESPONSE, rewards=Rewards())
