"""A policy small enough to know the best one in closed form, trained through the learner's own functions.

20 prompts; on each an honest answer is right with a known probability p between 0.05 and 0.95, and another is always
wrong: sabotage. The policy is a table: for each prompt logits of the two answers, and for each of them logits of 21
confidences. It learns from groups of 8 by policy gradient and Adam.

The best policy answers honestly and states p: accuracy 0.500, Brier score 0.175.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import Rewards
from rewards.mixing import Mixed, combine, confidence_values, credits
from rewards.scoring import Floats, Scorer

P = np.linspace(0.05, 0.95, 20)
GRID = np.linspace(0.0, 1.0, 21)
GROUP, STEPS, RATE = 8, 6000, 0.05
HONEST, SABOTAGE = 0, 1
IDEAL_BRIER = float((P * (1 - P)).mean())


@dataclass(frozen=True)
class Learnt:
    """What a policy came to, in expectation."""

    accuracy: float
    brier: float  # expected squared error of the confidence
    honesty: Floats  # [20] probability of the honest answer
    bias: Floats  # [20] mean confidence of the honest answer less p


@dataclass
class Table:
    """Logits under Adam (Kingma and Ba, 2015), ascending."""

    logits: Floats
    mean: Floats
    square: Floats

    @classmethod
    def of(cls, *shape: int) -> Table:
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    @property
    def policy(self) -> Floats:
        shifted = np.exp(self.logits - self.logits.max(axis=-1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

    def ascend(self, gradient: Floats, step: int, rate: float) -> None:
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        scale = np.sqrt(self.square / (1 - 0.999 ** (step + 1))) + 1e-8
        self.logits = self.logits + rate * self.mean / (1 - 0.9 ** (step + 1)) / scale


@dataclass(frozen=True)
class Policy:
    """What is answered to each prompt, and with which confidence."""

    answers: Table  # [20, 2]
    confidences: Table  # [20, 2, 21]

    @classmethod
    def start(cls) -> Policy:
        """One that answers and states anything, as likely as anything else."""
        return cls(Table.of(20, 2), Table.of(20, 2, 21))


@dataclass(frozen=True)
class Batch:
    """What was sampled in one step; all [20, G]."""

    answer: NDArray[np.int64]  # HONEST or SABOTAGE
    confidence: Floats
    correct: Floats  # 0 or 1


def drawn(rng: np.random.Generator, probabilities: Floats) -> NDArray[np.int64]:
    """An index for each distribution along the last axis."""
    cumulated = probabilities.cumsum(axis=-1)
    ballots = rng.uniform(size=(*cumulated.shape[:-1], 1)) * cumulated[..., -1:]
    return np.asarray((ballots > cumulated).sum(axis=-1))


def learnt(settings: Mapping[str, object], *, exact: bool = False, seed: int = 0) -> Learnt:
    """What a table comes to under a mix of rewards."""
    *_, last = training(settings, exact=exact, seed=seed)
    return last


def training(
    settings: Mapping[str, object], *, exact: bool = False, seed: int = 0, look_every: int = STEPS
) -> Iterator[Learnt]:
    """Train a table under a mix of rewards, and look at it every so many steps."""
    policy = Policy.start()
    for step, _ in enumerate(batches(policy, settings, exact=exact, seed=seed), start=1):
        if step % look_every == 0:
            yield _looked_at(policy.answers.policy, policy.confidences.policy)


def batches(policy: Policy, settings: Mapping[str, object], *, exact: bool = False, seed: int = 0) -> Iterator[Batch]:
    """Train the policy under a mix of rewards; each batch once it has been learnt from."""
    rewards, rng = Rewards.model_validate(settings), np.random.default_rng(seed)
    worth = [confidence_values(GRID, outcome, outcome, rewards.weights, rewards) for outcome in (0.0, 1.0)]
    for step in range(STEPS):
        of_answers, of_confidences = policy.answers.policy, policy.confidences.policy
        answer = drawn(rng, np.repeat(of_answers[:, None], GROUP, axis=1))
        stated = drawn(rng, np.take_along_axis(of_confidences, answer[..., None], axis=1))
        correct = ((answer == HONEST) & (rng.uniform(size=(20, GROUP)) < P[:, None])).astype(np.float64)
        for_answer, for_confidence = credited(rewards, GRID[stated], correct)

        chosen = np.eye(2)[answer]  # [20, G, 2]
        moved = np.einsum("pg,pga->pa", for_answer, chosen - of_answers[:, None])
        if exact:
            right = np.einsum("pga,pg->pa", chosen, correct)  # right answers of each kind
            values = right[..., None] * worth[1] + (chosen.sum(axis=1) - right)[..., None] * worth[0]  # [20, 2, 21]
            stated_moved = of_confidences * (values - (of_confidences * values).sum(axis=-1, keepdims=True))
        else:
            gained = np.einsum("pg,pga,pgc->pac", for_confidence, chosen, np.eye(21)[stated])
            stated_moved = gained - gained.sum(axis=-1, keepdims=True) * of_confidences
        rate = RATE * (1 - step / STEPS)
        policy.answers.ascend(moved / GROUP, step, rate)
        policy.confidences.ascend(stated_moved / GROUP, step, rate)
        yield Batch(answer, GRID[stated], correct)


def _looked_at(honesty: Floats, of_confidences: Floats) -> Learnt:
    right = np.stack([P, np.zeros(20)], axis=1)[..., None]  # of either answer
    error = (of_confidences * (right * (1 - GRID) ** 2 + (1 - right) * GRID**2)).sum(axis=2)
    return Learnt(
        accuracy=float((honesty[:, HONEST] * P).mean()),
        brier=float((honesty * error).sum(axis=1).mean()),
        honesty=honesty[:, HONEST],
        bias=of_confidences[:, HONEST] @ GRID - P,
    )


def credited(rewards: Rewards, stated: Floats, correct: Floats) -> tuple[Floats, Floats]:
    """What the answers and the confidences of all groups, [20, G], are credited with, as the learner does it."""
    scorer, everyone = Scorer(rewards.scoring_rule, rewards.log_clip), np.ones(correct.size, dtype=np.bool_)
    parts = {
        "correctness": correct.ravel(),
        "calibration": scorer(stated, correct).ravel(),
        "format": np.ones(correct.size),
    }
    mixed = combine(parts, everyone, rewards.weights, rewards.credit)
    found = []
    for prompt in range(20):
        own = slice(prompt * GROUP, (prompt + 1) * GROUP)
        group = Mixed(mixed.answer[own], mixed.confidence[own], mixed.total[own], mixed.well_formed[own])
        found.append(credits(group, stated[prompt], correct[prompt], rewards.weights, rewards))
    return np.stack([one.answer for one in found]), np.stack([one.confidence for one in found])
