"""From raw reward parts to what tokens are trained on: the one place where weights are applied.

Learner, logs, viewer and re-scorer all call `combine`, so the number logged is the number trained on,
weights can be changed in a running job, and saved rollouts can be scored again.

`safety` checks a mix before anything is started. Notation there: a and b are the weights of
correctness and calibration, p the true probability that the answer is right, S the scoring rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from configs.schema import Baseline, Credit, Rewards, RewardWeights
from rewards.parts import PARTS
from rewards.scoring import Scorer, sabotage_bound

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """Weighted rewards of a group's G members."""

    answer: Floats  # [G] credited to every token but the confidence's
    confidence: Floats  # [G] credited to the confidence tokens; means something where `well_formed`
    total: Floats  # [G] the weighted sum of all parts: what is logged
    well_formed: Mask  # [G] members that have confidence tokens


def combine(parts: Mapping[str, Floats], well_formed: Mask, weights: RewardWeights, credit: Credit) -> Mixed:
    """Weigh the raw parts, each [G], and say which tokens they are credited to.

    Apart, the answer tokens never see the calibration part: nothing is gained by being wrong in a predictable
    way. Format goes to both, since any token can break it.

    Raises ValueError for parts that are missing, unknown, of another shape, or not finite.
    """
    weighted = {name: getattr(weights, name) * part for name, part in _checked(parts, well_formed).items()}
    total = weighted["correctness"] + weighted["calibration"] + weighted["format"]
    if credit is Credit.JOINT:
        return Mixed(answer=total, confidence=total, total=total, well_formed=well_formed)
    return Mixed(
        answer=weighted["correctness"] + weighted["format"],
        confidence=weighted["calibration"] + weighted["format"],
        total=total,
        well_formed=well_formed,
    )


def advantages(rewards: Floats, baseline: Baseline, counted: Mask) -> Floats:
    """[G] rewards less their group's baseline; 0 for members that do not count, and for one alone.

    For answer tokens count the members that were scored; for confidence tokens only the well-formed ones.
    A malformed response has no confidence tokens, and its floor in the baseline would reward every confidence
    its well-formed siblings happened to state.

    Never divided by the group's standard deviation: the divisor depends on how the group's answers fell, so
    what is maximised is no longer the proper score, and confidences become extreme (arXiv 2508.11800).
    The mean holds the member's own reward, which shrinks advantages by (n - 1) / n; leave-one-out does not
    (Kool et al., Buy 4 REINFORCE Samples, Get a Baseline for Free, 2019).
    """
    result = np.zeros(len(rewards))
    members = int(counted.sum())
    if members < 2:
        return result
    shifted = rewards[counted] - rewards[counted][0]  # so that equal rewards give exactly 0
    centred = shifted - shifted.mean()
    result[counted] = centred * members / (members - 1) if baseline is Baseline.LEAVE_ONE_OUT else centred
    return result


def confidence_advantages(confidence: Floats, correct: Floats, rewards: Rewards, counted: Mask) -> Floats:
    """[G] calibration scores less what the group's confidences would have scored on the member's own outcome.

    S(c_i, y_i) less the mean over members j of S(c_j, y_i), where `advantages` would subtract the mean of
    S(c_j, y_j). Both baselines are free of the member's own confidence (but for its own share in the mean), so the
    expected gradient is the same; this one does not carry the luck of who was right, which moves scores by more
    than confidences do once these are alike. 0 where all state the same. After the factorized baselines of Wu et
    al., Variance Reduction for Policy Gradient with Action-Dependent Factorized Baselines, 2018, where the baseline
    of one action may depend on the others: here the action is the confidence, and the answer's outcome is given.

    `confidence` and `correct` are [G] in [0, 1]; what does not count may hold anything finite in that range.
    """
    result = np.zeros(len(confidence))
    members = int(counted.sum())
    if members < 2:
        return result
    stated, right = confidence[counted], correct[counted]
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    scores = scorer(np.broadcast_to(stated, (members, members)), np.broadcast_to(right[:, None], (members, members)))
    gained = np.diag(scores)[:, None] - scores  # [i, j] what i's confidence gained over j's, on i's outcome
    result[counted] = gained.sum(axis=1) / (members - 1 if rewards.baseline is Baseline.LEAVE_ONE_OUT else members)
    return result


def confidence_values(confidence: Floats, correct: float, weights: RewardWeights, rewards: Rewards) -> Floats:
    """[K] what each of K confidences would have earned its tokens, given the answer's outcome in [0, 1].

    Counted from a malformed response, which earns 0: so the probability of stating none of the K is lost reward.
    """
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    scores = scorer(confidence, np.full(len(confidence), correct))
    return weights.calibration * (scores - scorer.range.lowest) + weights.format


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
    return [*_sabotage(rewards), *_worth_of_malformed(rewards), *_untrained(rewards)]


def sabotage_threshold(rewards: Rewards) -> float:
    """The p below which answering wrong on purpose and saying so pays more than an honest best effort.

    Honest effort earns a * p + b * G(p), with G(p) = S(p, p); sabotage earns b * G(0). The difference is
    convex in p and 0 at p = 0, so it is negative up to one root, found here by bisection; for Brier that is
    1 - a / b. 0: sabotage never pays. 1: it always does.
    """
    weights, scorer = rewards.weights, Scorer(rewards.scoring_rule, rewards.log_clip)
    if rewards.credit is Credit.APART or weights.correctness >= weights.calibration * _bound(rewards):
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        surplus = scorer.honest(middle) - scorer.honest(0.0)
        pays = weights.correctness * middle + weights.calibration * surplus < 0
        low, high = (middle, high) if pays else (low, middle)
    return high


def _bound(rewards: Rewards) -> float:
    return sabotage_bound(rewards.scoring_rule, rewards.log_clip)


def _sabotage(rewards: Rewards) -> Iterator[SafetyFinding]:
    needed = rewards.weights.calibration * _bound(rewards)
    if rewards.credit is Credit.APART or needed == 0:
        return
    mend = f"Set rewards.credit to apart, or rewards.weights.correctness above {needed:.4g}."
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
    correct, confidence = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])
    parts = {  # the malformed one comes last
        "correctness": np.append(correct, 0.0),
        "calibration": np.append(scorer(confidence, correct), scorer.range.lowest),
        "format": np.array([1.0, 1.0, 1.0, 1.0, 0.0]),
    }
    mixed = combine(parts, parts["format"] == 1, rewards.weights, rewards.credit)
    lead = min(float(credited[:-1].min() - credited[-1]) for credited in (mixed.answer, mixed.total))
    if lead <= 0:
        yield SafetyFinding(
            Severity.UNSAFE,
            f"At p = 0 a well-formed response can be worth no more than a malformed one (lead {lead:.3g}), "
            "so breaking the format costs nothing there. Set rewards.weights.format above 0.",
        )


def _untrained(rewards: Rewards) -> Iterator[SafetyFinding]:
    for name, tokens in (("calibration", "confidence"), ("correctness", "answer")):
        if getattr(rewards.weights, name) == 0:
            yield SafetyFinding(
                Severity.NOTE,
                f"The {tokens} is not trained, at any p: {name} has no weight. "
                f"Set rewards.weights.{name} above 0 unless that is what you want.",
            )


def _checked(parts: Mapping[str, Floats], well_formed: Mask) -> dict[str, Floats]:
    if set(parts) != set(PARTS):
        raise ValueError(f"got the parts {sorted(parts)}, expected {sorted(PARTS)}; score the rollouts anew")
    arrays = {name: np.asarray(parts[name], dtype=np.float64) for name in PARTS}
    for name, array in arrays.items():
        if well_formed.ndim != 1 or array.shape != well_formed.shape:
            raise ValueError(
                f"got {name} of shape {array.shape} and well_formed of shape {well_formed.shape}, expected "
                "one value of each for every member of the group"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"got {name} = {array.tolist()}, expected finite numbers; mend the scorer")
    return arrays
