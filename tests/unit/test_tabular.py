"""What each mix of rewards teaches, on a policy small enough to know the best one in closed form.

20 prompts; on each an honest answer is right with a known probability p between 0.05 and 0.95, and another is always
wrong: sabotage. The policy is a table: for each prompt logits of the two answers, and for each of them logits of 21
confidences. It learns from groups of 8 by policy gradient, through the same functions as the learner.

The best policy answers honestly and states p: accuracy 0.500, Brier score 0.175.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.schema import Credit, Rewards, ScoringRule
from rewards.mixing import Floats, advantages, combine, confidence_advantages, confidence_values
from rewards.scoring import Scorer

P = np.linspace(0.05, 0.95, 20)
GRID = np.linspace(0.0, 1.0, 21)
GROUP, STEPS, RATE = 8, 6000, 0.5
HONEST, SABOTAGE = 0, 1
CONFIDENCE_RATE = 1.5  # of an answer's: confidences are many and differ by little
IDEAL_BRIER = float((P * (1 - P)).mean())


@dataclass(frozen=True)
class Learnt:
    """What a policy came to, in expectation."""

    accuracy: float
    brier: float  # expected squared error of the confidence
    honesty: Floats  # [20] probability of the honest answer
    bias: Floats  # [20] mean confidence of the honest answer less p


def softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def drawn(rng: np.random.Generator, probabilities: Floats) -> NDArray[np.int64]:
    """An index for each distribution along the last axis."""
    cumulated = probabilities.cumsum(axis=-1) / probabilities.sum(axis=-1, keepdims=True)
    return np.asarray((rng.uniform(size=(*cumulated.shape[:-1], 1)) > cumulated).sum(axis=-1))


def learnt(rewards: Rewards, *, exact: bool = False, by_std: bool = False) -> Learnt:
    """Train a table under a mix of rewards."""
    rng = np.random.default_rng(0)
    answers, confidences = np.zeros((20, 2)), np.zeros((20, 2, 21))
    worth = [confidence_values(GRID, outcome, rewards.weights, rewards) for outcome in (0.0, 1.0)]
    for step in range(STEPS):
        of_answers, of_confidences = softmax(answers), softmax(confidences)
        answer = drawn(rng, np.repeat(of_answers[:, None], GROUP, axis=1))
        stated = drawn(rng, np.take_along_axis(of_confidences, answer[..., None], axis=1))
        correct = ((answer == HONEST) & (rng.uniform(size=(20, GROUP)) < P[:, None])).astype(np.float64)
        rate = RATE * (1 - step / STEPS)
        for prompt in range(20):
            for_answer, for_confidence = credits(rewards, GRID[stated[prompt]], correct[prompt], by_std=by_std)
            moves = for_answer @ (np.eye(2)[answer[prompt]] - of_answers[prompt])
            answers[prompt] += rate / GROUP * moves
            for kind in (HONEST, SABOTAGE):
                own, policy = answer[prompt] == kind, of_confidences[prompt, kind]
                if exact:
                    right = correct[prompt][own]
                    values = right.sum() * worth[1] + (1 - right).sum() * worth[0]
                    moves = policy * (values - policy @ values)
                else:
                    moves = for_confidence[own] @ (np.eye(21)[stated[prompt][own]] - policy)
                confidences[prompt, kind] += CONFIDENCE_RATE * rate / GROUP * moves
    honesty, of_confidences = softmax(answers), softmax(confidences)
    right = np.stack([P, np.zeros(20)], axis=1)[..., None]  # of either answer
    error = (of_confidences * (right * (1 - GRID) ** 2 + (1 - right) * GRID**2)).sum(axis=2)
    return Learnt(
        accuracy=float((honesty[:, HONEST] * P).mean()),
        brier=float((honesty * error).sum(axis=1).mean()),
        honesty=honesty[:, HONEST],
        bias=of_confidences[:, HONEST] @ GRID - P,
    )


def credits(rewards: Rewards, stated: Floats, correct: Floats, *, by_std: bool) -> tuple[Floats, Floats]:
    """What a group's answers and its confidences are credited with, as the learner does it."""
    scorer, everyone = Scorer(rewards.scoring_rule, rewards.log_clip), np.ones(GROUP, dtype=np.bool_)
    parts = {"correctness": correct, "calibration": scorer(stated, correct), "format": np.ones(GROUP)}
    mixed = combine(parts, everyone, rewards.weights, rewards.credit)
    for_answer = advantages(mixed.answer, rewards.baseline, everyone)
    if rewards.credit is Credit.APART:
        return for_answer, confidence_advantages(stated, correct, rewards, everyone)
    if by_std:  # GRPO's default, which the learner does not offer
        for_answer = for_answer / (mixed.total.std() + 1e-6)
    return for_answer, for_answer


@pytest.mark.parametrize("rule", [ScoringRule.BRIER, ScoringRule.LOG])
@pytest.mark.parametrize("exact", [False, True], ids=["sampled", "exact"])
def test_credit_apart_teaches_to_answer_honestly_and_to_state_the_truth(rule: ScoringRule, exact: bool) -> None:
    found = learnt(Rewards(scoring_rule=rule), exact=exact)

    assert found.accuracy >= 0.495
    assert found.brier - IDEAL_BRIER <= 0.005


def test_dividing_by_the_groups_standard_deviation_biases_confidences_to_the_extremes() -> None:
    rewards = Rewards(credit=Credit.JOINT)

    found, fair = learnt(rewards, by_std=True), learnt(rewards)

    assert found.brier - IDEAL_BRIER > 0.01
    extremes = [float(f.bias[P > 0.5].mean() - f.bias[P < 0.5].mean()) for f in (found, fair)]
    assert extremes[0] > extremes[1] + 0.05
