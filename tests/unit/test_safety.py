"""Tests of rewards.safety."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Credit, Preset, Rewards, RewardWeights, ScoringRule
from rewards.safety import Severity, sabotage_threshold, safety
from rewards.scoring import Floats, Scorer, sabotage_bound

BOUNDED = [rule for rule in ScoringRule if rule is not ScoringRule.UNCLIPPED_LOG]


def mix(correctness: float, calibration: float, **settings: object) -> Rewards:
    """One reward for the whole response, unless said otherwise."""
    weights = RewardWeights(correctness=correctness, calibration=calibration)
    return Rewards.model_validate({"weights": weights, "credit": Credit.JOINT, **settings})


@pytest.mark.parametrize("rule", BOUNDED)
def test_the_default_mix_is_safe_under_every_rule(rule: ScoringRule) -> None:
    assert safety(Rewards(scoring_rule=rule)) == []


@pytest.mark.parametrize("rule", BOUNDED)
@pytest.mark.parametrize(("relative", "severities"), [(0.99, ["unsafe"]), (1.0, ["note"]), (1.01, [])])
def test_joint_credit_is_safe_only_above_the_sabotage_bound(
    rule: ScoringRule, relative: float, severities: list[str]
) -> None:
    rewards = mix(relative * 2.0 * sabotage_bound(rule, 0.01), 2.0, scoring_rule=rule)

    assert [finding.severity for finding in safety(rewards)] == severities


@pytest.mark.parametrize("rule", BOUNDED)
def test_credit_apart_is_safe_below_the_sabotage_bound(rule: ScoringRule) -> None:
    rewards = mix(0.1, 5.0, scoring_rule=rule, credit=Credit.APART)

    assert safety(rewards) == []
    assert sabotage_threshold(rewards) == 0.0


@pytest.mark.parametrize(("correctness", "calibration"), [(1.0, 2.0), (0.3, 1.0), (0.99, 1.0)])
def test_the_threshold_under_brier_is_known_in_closed_form(correctness: float, calibration: float) -> None:
    threshold = sabotage_threshold(mix(correctness, calibration))

    assert threshold == pytest.approx(1 - correctness / calibration)


@pytest.mark.parametrize(
    ("held_against", "luck"),
    [
        ({"reference": "annotator"}, 1.0),
        ({"reference": "annotator", "target": {"annotators": 0.25}}, 0.75),
        ({"reference": "annotator", "target": {"annotators": 1.0}}, 0.0),
        ({"reference": "shares"}, 0.0),
    ],
)
def test_under_brier_a_share_that_is_known_beforehand_leaves_less_to_be_had_by_sabotage(
    held_against: dict[str, object], luck: float
) -> None:
    rewards = mix(0.1, 1.0, **held_against)
    rng, stated = np.random.default_rng(0), np.linspace(0, 1, 101)

    def earned(p: float, confidence: Floats) -> Floats:
        """Expected by who is right with p about a share of p: weights 0.1 and 1, over raters."""
        target = luck * np.arange(2)[:, None] + (1 - luck) * p
        return 0.1 * p + np.array([1 - p, p]) @ -((confidence - target) ** 2)

    pays = [p for p in rng.uniform(0.01, 1, 200) if earned(p, stated).max() < 0]

    assert sabotage_threshold(rewards) == pytest.approx(max(pays, default=0.0), abs=0.02)
    assert ([finding.severity for finding in safety(rewards)] == [Severity.UNSAFE]) is (luck > 0)


def test_a_score_that_has_no_weight_does_not_hide_that_breaking_the_form_costs_nothing() -> None:
    settings = {"preset": "emocaliber", "weights": {"calibration": 0.0, "format": 0.0, "correctness": 1.0}}

    found = safety(Rewards.model_validate(settings))

    assert [finding.severity for finding in found] == [Severity.UNSAFE, Severity.NOTE]
    assert "no more than a malformed one" in found[0].message


def test_the_emocaliber_preset_pays_for_sabotage_below_0_849_and_for_malformed_above_0_950() -> None:
    rewards = Rewards(preset=Preset.EMOCALIBER)

    sabotage, unbounded = safety(rewards)

    assert sabotage_threshold(rewards) == pytest.approx(0.849, abs=5e-4)
    assert [sabotage.severity, unbounded.severity] == [Severity.UNSAFE] * 2
    assert "p = 0.849" in sabotage.message
    assert "rewards.credit" in sabotage.message
    assert "above 0.950 is worth less than a malformed one" in unbounded.message


def test_the_rlcr_preset_stands_on_the_edge_of_sabotage() -> None:
    (finding,) = safety(Rewards(preset=Preset.RLCR))

    assert finding.severity is Severity.NOTE
    assert "At p = 0 a first step" in finding.message


def test_the_dcpo_preset_is_told_what_its_group_target_estimates() -> None:
    (finding,) = safety(Rewards(preset=Preset.DCPO))

    assert finding.severity is Severity.NOTE
    assert finding.message.startswith("50% of a confidence's target")


def test_rlvr_is_told_that_it_trains_no_confidence() -> None:
    (finding,) = safety(Rewards(preset=Preset.RLVR))

    assert finding.message.startswith("The confidence is not trained")


def test_division_by_the_groups_std_is_unsafe_where_a_score_is_trained() -> None:
    by_std = {"divide_by_std": True, "credit": "joint", "weights": {"correctness": 2.0}}

    (finding,) = safety(Rewards.model_validate(by_std))

    assert finding.severity is Severity.UNSAFE
    assert "rewards.divide_by_std" in finding.message
    unrewarded = Rewards.model_validate(by_std | {"weights": {"calibration": 0.0}})
    assert Severity.UNSAFE not in [finding.severity for finding in safety(unrewarded)]


def test_a_malformed_response_worth_more_than_the_worst_well_formed_one_is_unsafe() -> None:
    (finding,) = safety(
        Rewards.model_validate(
            {"malformed": {"calibration": 0.0}, "credit": "joint", "weights": {"calibration": 1, "correctness": 2}}
        )
    )

    assert finding.severity is Severity.UNSAFE
    assert finding.message.endswith("Set rewards.weights.format above 1.")


@pytest.mark.parametrize("rule", BOUNDED)
@pytest.mark.parametrize("correctness", [0.05, 0.3, 0.8])
def test_sabotage_pays_below_the_threshold_and_not_above(rule: ScoringRule, correctness: float) -> None:
    rewards = mix(correctness, 1.0, scoring_rule=rule)
    scorer = Scorer(rule, rewards.log_clip)
    confidences = np.linspace(0.0, 1.0, 2001)
    when_right, when_wrong = scorer(confidences, np.ones(2001)), scorer(confidences, np.zeros(2001))

    def best_honest(probability: float) -> float:
        expected = probability * when_right + (1 - probability) * when_wrong
        return correctness * probability + float(expected.max())

    sabotage = float(scorer(0.0, 0.0))
    threshold = sabotage_threshold(rewards)
    assert 0 < threshold < 1
    assert best_honest(threshold - 0.01) < sabotage < best_honest(threshold + 0.005)


def test_without_correctness_sabotage_pays_at_every_probability() -> None:
    assert sabotage_threshold(mix(0.0, 1.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", BOUNDED)
@pytest.mark.parametrize("credit", Credit)
def test_without_a_weight_on_format_breaking_it_costs_nothing(rule: ScoringRule, credit: Credit) -> None:
    weights = RewardWeights(correctness=10.0, calibration=1.0, format=0.0)

    (finding,) = safety(Rewards(weights=weights, scoring_rule=rule, credit=credit))

    assert finding.severity is Severity.UNSAFE
    assert "rewards.weights.format" in finding.message


@pytest.mark.parametrize("credit", Credit)
def test_a_part_without_weight_is_noted(credit: Credit) -> None:
    (finding,) = safety(Rewards(weights=RewardWeights(calibration=0.0), credit=credit))

    assert finding.severity is Severity.NOTE
    assert "confidence is not trained" in finding.message


@given(
    weights=st.builds(RewardWeights, **dict.fromkeys(RewardWeights.model_fields, st.floats(0, 100))),
    rule=st.sampled_from(BOUNDED),
    credit=st.sampled_from(Credit),
)
def test_every_finding_has_two_sentences_and_names_a_setting(
    weights: RewardWeights, rule: ScoringRule, credit: Credit
) -> None:
    for finding in safety(Rewards(weights=weights, scoring_rule=rule, credit=credit)):
        assert finding.message.count(". ") == 1
        assert finding.message.endswith(".")
        assert "Set rewards." in finding.message
        assert re.search(r"\bp\b", finding.message)
