"""From raw reward parts to what tokens are trained on: the one place where weights are applied.

Learner, logs, viewer and re-scorer all call `combine`, so the number logged is the number trained on,
weights can be changed in a running job, and saved rollouts can be scored again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import Baseline, Credit, Rewards, RewardWeights
from rewards.parts import PARTS, malformed_parts
from rewards.scoring import Floats, Scorer

Mask = NDArray[np.bool_]

_LEAST_STD = 1e-4  # GRPO's


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


def advantages(rewards: Floats, baseline: Baseline, counted: Mask, *, divide_by_std: bool = False) -> Floats:
    """[G] rewards less their group's baseline; 0 for members that do not count, and for one alone.

    For answer tokens count the members that were scored; for confidence tokens only the well-formed ones.
    A malformed response has no confidence tokens, and its floor in the baseline would reward every confidence
    its well-formed siblings happened to state.

    Not divided by the group's standard deviation, unless asked: the divisor depends on how the group's answers fell,
    so what is maximised is no longer the proper score, and confidences become extreme (arXiv 2508.11800). Asked, it is
    the population's, the root of the mean square over the members that count, plus 1e-4.
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
    if divide_by_std:
        result /= centred.std() + _LEAST_STD
    return result


def confidence_advantages(confidence: Floats, target: Floats, rewards: Rewards, counted: Mask) -> Floats:
    """[G] calibration scores less what the group's confidences would have scored on the member's own target.

    S(c_i, t_i) less the mean over members j of S(c_j, t_i), where `advantages` would subtract the mean of
    S(c_j, t_j). Both baselines are free of the member's own confidence (but for its own share in the mean), so the
    expected gradient is the same; this one does not carry the luck of who was right, which moves scores by more
    than confidences do once these are alike. 0 where all state the same. After the factorized baselines of Wu et
    al., Variance Reduction for Policy Gradient with Action-Dependent Factorized Baselines, 2018, where the baseline
    of one action may depend on the others: here the action is the confidence, and the answer's outcome is given.

    `confidence` and `target` are [G] in [0, 1]; what does not count may hold anything finite in that range.
    """
    result = np.zeros(len(confidence))
    members = int(counted.sum())
    if members < 2:
        return result
    stated, held = confidence[counted], target[counted]
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    scores = scorer(np.broadcast_to(stated, (members, members)), np.broadcast_to(held[:, None], (members, members)))
    gained = np.diag(scores)[:, None] - scores  # [i, j] what i's confidence gained over j's, on i's target
    result[counted] = gained.sum(axis=1) / (members - 1 if rewards.baseline is Baseline.LEAVE_ONE_OUT else members)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Credits:
    """Advantages of a group's G members."""

    answer: Floats  # [G] of every token but the confidence's
    confidence: Floats  # [G] of the confidence tokens; 0 where there are none


def credits(mixed: Mixed, confidence: Floats, target: Floats, weights: RewardWeights, rewards: Rewards) -> Credits:
    """What each token of a group's members is credited with, given what `combine` made of their parts.

    With credit apart, confidence tokens get the advantage of the calibration score among well-formed members and all
    others that of the rest; jointly, all get that of the sum. `confidence` and `target` are [G] in [0, 1]; where a
    member is malformed they may hold anything finite in that range.
    """
    everyone = np.ones(len(mixed.total), dtype=np.bool_)
    by_std = rewards.divide_by_std
    answer = advantages(mixed.answer, rewards.baseline, everyone, divide_by_std=by_std)
    if rewards.credit is Credit.JOINT:
        return Credits(answer, advantages(mixed.confidence, rewards.baseline, mixed.well_formed, divide_by_std=by_std))
    gained = confidence_advantages(confidence, target, rewards, mixed.well_formed)
    return Credits(answer, weights.calibration * gained)


def confidence_values(
    confidence: Floats, target: float, correct: float, weights: RewardWeights, rewards: Rewards
) -> Floats:
    """[K] what each of K confidences would have earned its tokens beside an answer, given what both are held against.

    `target` and `correct` are in [0, 1]. Counted from a malformed response, which earns 0: so the probability of
    stating none of the K is lost reward, with joint credit that of the answer too.
    """
    scorer, malformed = Scorer(rewards.scoring_rule, rewards.log_clip), malformed_parts(rewards)
    scores = scorer(confidence, np.full(len(confidence), target))
    answer = weights.correctness * correct if rewards.credit is Credit.JOINT else 0.0
    form = weights.format * (1.0 - malformed["format"])
    return weights.calibration * (scores - malformed["calibration"]) + form + answer


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
