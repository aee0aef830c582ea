"""Whether a mix of rewards can be gamed: checked before anything is started.

Notation: a and b are the weights of correctness and calibration, p the true probability that the answer is right,
S the scoring rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from configs.schema import Credit, Reference, Rewards, ScoringRule
from rewards.mixing import combine
from rewards.parts import malformed_parts
from rewards.scoring import Scorer, sabotage_bound


class Severity(StrEnum):
    """What a finding means for the run."""

    UNSAFE = "unsafe"  # refused, unless rewards.allow_unsafe
    NOTE = "note"  # said, and run


@dataclass(frozen=True, slots=True)
class SafetyFinding:
    """Something a mix of rewards leads to: what goes wrong and where, then what mends it."""

    severity: Severity
    message: str


def safety(rewards: Rewards) -> list[SafetyFinding]:
    """All that is to be said against a mix; empty where nothing is."""
    checks = (_sabotage, _worth_of_malformed, _unbounded, _division, _target, _untrained)
    return [finding for check in checks for finding in check(rewards)]


def unsafe(rewards: Rewards) -> list[str]:
    """What makes a mix unsafe; empty for a safe one."""
    return [finding.message for finding in safety(rewards) if finding.severity is Severity.UNSAFE]


def refuse_unsafe(rewards: Rewards) -> None:
    """Raises ValueError for an unsafe mix, unless it allows it itself."""
    if (found := unsafe(rewards)) and not rewards.allow_unsafe:
        raise ValueError(
            "\n  ".join(["the reward mix is unsafe (rewards.allow_unsafe: true runs it all the same):", *found])
        )


def sabotage_threshold(rewards: Rewards) -> float:
    """The p below which answering wrong on purpose and saying so pays more than an honest best effort.

    Honest effort earns a * p + b * G(p), with G(p) = S(p, p); sabotage earns b * G(0). The difference is
    convex in p and 0 at p = 0, so it is negative up to one root, found here by bisection; for Brier that is
    1 - a / b. 0: sabotage never pays. 1: it always does.

    Where the target is partly a share of annotators, who state p knows that part: Brier's score, -(c - i)^2, loses
    nothing by it, and G is that of the part that is luck, times its share squared. The other rules' scores of a share
    are expectations, and their G is the same.
    """
    weights, scorer, luck = rewards.weights, Scorer(rewards.scoring_rule, rewards.log_clip), _luck(rewards)
    if rewards.credit is Credit.APART or weights.correctness >= weights.calibration * _bound(rewards):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        surplus = luck * (scorer.honest(middle) - scorer.honest(0.0))
        pays = weights.correctness * middle + weights.calibration * surplus < 0
        low, high = (middle, high) if pays else (low, middle)
    return high


def _bound(rewards: Rewards) -> float:
    luck = _luck(rewards)
    return luck * sabotage_bound(rewards.scoring_rule, rewards.log_clip)


def _luck(rewards: Rewards) -> float:
    """How much of a score's expected loss is left where it is held against more than one outcome, in [0, 1]."""
    if rewards.scoring_rule is not ScoringRule.BRIER:
        return 1.0
    by_chance = 0.0 if rewards.reference is Reference.SHARES else 1.0 - rewards.target.annotators
    return by_chance**2


def _sabotage(rewards: Rewards) -> Iterator[SafetyFinding]:
    calibration = rewards.weights.calibration
    if rewards.credit is Credit.APART or calibration == 0 or _luck(rewards) == 0:
        return
    needed = calibration * _bound(rewards)
    mend = "Set rewards.credit to apart" + (
        f", or rewards.weights.correctness above {needed:.4g}." if math.isfinite(needed) else "."
    )
    if math.isclose(rewards.weights.correctness, needed, rel_tol=1e-9):
        yield SafetyFinding(
            Severity.NOTE,
            "At p = 0 a first step towards a right answer gains nothing over being wrong and saying so, so "
            f"hopeless prompts are learnt slowly or never. {mend}",
        )
    elif rewards.weights.correctness < needed:
        yield SafetyFinding(
            Severity.UNSAFE,
            f"Below p = {sabotage_threshold(rewards):.3f} it pays to answer wrong on purpose and state a "
            f"confidence of 0: calibration will look superb while accuracy falls. {mend}",
        )


def _worth_of_malformed(rewards: Rewards) -> Iterator[SafetyFinding]:
    """Compares, through `combine` itself, a malformed response with the corners of the well-formed ones."""
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    scored = rewards.weights.calibration > 0
    if scored and not math.isfinite(scorer.range.lowest):
        return  # `_unbounded` says where
    correct, confidence = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    malformed = malformed_parts(rewards)
    parts = {  # the malformed one comes last
        "correctness": np.append(correct, malformed["correctness"]),
        "calibration": np.append(scorer(confidence, correct), malformed["calibration"]) if scored else np.zeros(5),
        "format": np.append(np.ones(4), malformed["format"]),
    }
    mixed = combine(parts, np.arange(5) < 4, rewards.weights, rewards.credit)
    lead = min(float(credited[:-1].min() - credited[-1]) for credited in (mixed.answer, mixed.total))
    if lead <= 0:
        yield SafetyFinding(
            Severity.UNSAFE,
            f"At p = 0 a well-formed response can be worth no more than a malformed one (lead {lead:.3g}), "
            "so breaking the format costs nothing there. Set rewards.weights.format above "
            f"{_format_needed(rewards, lead):.3g}.",
        )


def _format_needed(rewards: Rewards, lead: float) -> float:
    """The weight of the format at which a malformed response and the least well-formed one are worth the same."""
    return rewards.weights.format - lead / (1.0 - rewards.malformed.format)


def _unbounded(rewards: Rewards) -> Iterator[SafetyFinding]:
    """An unbounded rule scores some well-formed response below any malformed one; says from which confidence on."""
    scorer, weights = Scorer(rewards.scoring_rule, rewards.log_clip), rewards.weights
    if math.isfinite(scorer.range.lowest) or weights.calibration == 0:
        return
    malformed = malformed_parts(rewards)
    least = (weights.format * (malformed["format"] - 1.0)) / weights.calibration + malformed["calibration"]
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if scorer(middle, 0.0) > least else (low, middle)
    yield SafetyFinding(
        Severity.UNSAFE,
        f"The {rewards.scoring_rule} score has no floor: whatever p, a wrong answer with a confidence above {high:.3f} "
        "is worth less than a malformed one, and a single one outweighs a batch. Set rewards.scoring_rule to log, "
        "which is clipped.",
    )


def _division(rewards: Rewards) -> Iterator[SafetyFinding]:
    if rewards.divide_by_std and rewards.weights.calibration > 0:
        yield SafetyFinding(
            Severity.UNSAFE,
            "Division by the group's standard deviation makes confidences too high above p = 0.5 and too low below "
            "it, under every proper score (arXiv 2508.11800). Set rewards.divide_by_std to false.",
        )


def _target(rewards: Rewards) -> Iterator[SafetyFinding]:
    if rewards.target.group > 0 and rewards.weights.calibration > 0:
        yield SafetyFinding(
            Severity.NOTE,
            f"{rewards.target.group:.0%} of a confidence's target is the share of the whole group that was right: it "
            "learns the p of the prompt, not of the answer given. Set rewards.target.outcome in its place, "
            "or annotators where the rows have counts.",
        )


def _untrained(rewards: Rewards) -> Iterator[SafetyFinding]:
    for name, tokens in (("calibration", "confidence"), ("correctness", "answer")):
        if getattr(rewards.weights, name) == 0:
            yield SafetyFinding(
                Severity.NOTE,
                f"The {tokens} is not trained, at any p: {name} has no weight. "
                f"Set rewards.weights.{name} above 0 unless that is what you want.",
            )
