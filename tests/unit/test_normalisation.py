"""What the loss is a mean over, through the real `Policy.step`, however the sequences are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import LossMean
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.normalisation import normalised
from learner.tree import Branches, ConfidenceTree
from rollout.chat import Expanded
from tests.unit.plain_policy import LEARNING_RATE, PlainPolicy, alone

LENGTH = 16
CONFIDENCE_WEIGHT = 3.0


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with alone(tmp_path_factory.mktemp("group")):
        yield


class Table(torch.nn.Module):
    """A parameter for each token, which is its log-probability wherever it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.linspace(-2, -1, 50, dtype=torch.float64))

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        return self.values[batch.targets]


def drawn(seed: int) -> list[TrainingSequence]:
    """Three responses to each of two prompts, one of them without a score and so without weight."""
    rng = np.random.default_rng(seed)
    prompts = [Expanded(np.array([1, n], np.int32), None, None) for n in (2, 3)]
    made = []
    for number, prompt in enumerate(np.repeat(prompts, 3)):
        tokens = rng.integers(0, 50, size=rng.integers(2, 9)).astype(np.int32)
        stated = np.arange(len(tokens)) == 1
        weights = np.where(stated, CONFIDENCE_WEIGHT, 1.0) * (number != 4)
        advantages = rng.normal(size=len(tokens)).astype(np.float32)
        made.append(TrainingSequence(prompt, tokens, weights.astype(np.float32), advantages, confidence_mask=stated))
    return made


def loss(logprobs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    return (-batch.advantages * logprobs * batch.weights).sum()


def reference(sequences: Sequence[TrainingSequence], mean: LossMean) -> tuple[float, list[float]]:
    """The mean and its gradient, response by response."""
    values = Table().values.tolist()
    trained = [s for s in sequences if s.weights.any()]
    total, gradient = 0.0, [0.0] * 50
    all_weights = sum(float(weight) for s in trained for weight in s.weights)
    for s in trained:
        divisor = {
            LossMean.TOKEN: all_weights,
            LossMean.SEQUENCE: len(trained) * float(sum(s.weights)),
            LossMean.FIXED_LENGTH: len(trained) * LENGTH,
        }[mean]
        assert s.advantages is not None
        for token, weight, advantage in zip(s.response_tokens, s.weights, s.advantages, strict=True):
            total += -float(advantage) * values[token] * float(weight) / divisor
            gradient[token] += -float(advantage) * float(weight) / divisor
    return total, gradient


CUTS: dict[str, list[list[list[int]]]] = {  # micro-batches of rows of sequences
    "all in one row each prompt": [[[0, 1, 2], [3, 4, 5]]],
    "one by one": [[[n]] for n in range(6)],
    "rows apart": [[[0, 1], [3]], [[2]], [[4, 5]]],
}


@pytest.mark.parametrize("mean", LossMean)
@pytest.mark.parametrize("cut", CUTS)
def test_a_mean_is_the_same_however_the_batch_is_cut(mean: LossMean, cut: str) -> None:
    sequences = drawn(0)
    made = normalised(sequences, mean, LENGTH)
    batches = [
        collate([[made[n] for n in row] for row in rows], pad_token_id=0, image_token_id=None) for rows in CUTS[cut]
    ]
    table = Table()
    policy = PlainPolicy(table, rounds=8)  # the peers have more: the rest are dummies

    found = policy.step(batches, loss)

    total, gradient = reference(sequences, mean)
    moved = ((Table().values - table.values) / LEARNING_RATE).tolist()
    assert found == pytest.approx(total)
    assert moved == pytest.approx(gradient, abs=1e-6)
    assert policy.engine.passes == 8


@pytest.mark.parametrize("mean", LossMean)
def test_branches_weigh_as_the_confidence_tokens_they_stand_for(mean: LossMean) -> None:
    none = np.zeros(0, np.int64)
    tree = ConfidenceTree(np.zeros(1), 4, none, none, np.zeros((0, 0), np.bool_), none, none, np.zeros((1, 0)))
    sequences = [replace(s, branches=Branches(tree, 0, np.ones(1), CONFIDENCE_WEIGHT)) for s in drawn(1)[:3]]

    for made in normalised(sequences, mean, LENGTH):
        assert made.branches is not None and made.confidence_mask is not None
        assert made.branches.weight == pytest.approx(float(made.weights[made.confidence_mask][0]))


def test_a_rank_runs_as_many_forward_passes_without_gradient_as_the_one_with_the_most() -> None:
    made = drawn(2)
    batches = [
        collate([made[:3]], pad_token_id=0, image_token_id=None),
        collate([made[3:]], pad_token_id=0, image_token_id=None),
    ]
    policy = PlainPolicy(Table(), rounds=5)

    found = policy.response_logprobs(batches)

    assert policy.engine.passes == 5
    assert [len(logprobs) for logprobs in found] == [len(batch.targets) for batch in batches]
    assert not any(logprobs.requires_grad for logprobs in found)
