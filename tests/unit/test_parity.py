"""Tests of learner.parity: which tokens count, over ranks that are lists of sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from learner.batching import MicroBatch, TrainingSequence, collate
from learner.parity import Parity
from rollout.chat import Expanded

VERSION = 5


def response(logprobs: Sequence[float], *versions: int, weight: float = 1.0) -> TrainingSequence:
    size = len(logprobs)
    return TrainingSequence(
        Expanded(np.array([1, 2], np.int32), None, None),
        np.full(size, 3, np.int32),
        weights=np.full(size, weight, np.float32),
        behaviour_logprobs=np.array(logprobs, np.float32),
        versions=np.resize(versions, size),
    )


def batch_of(*sequences: TrainingSequence) -> MicroBatch:
    return collate([[sequence] for sequence in sequences], pad_token_id=0, image_token_id=None)


def mean_of(*ranks: Parity) -> float | None:
    """What every rank is told, by what `Policy.mean_over_ranks` does with each one's sums."""
    told: list[tuple[Mapping[str, float], float]] = []

    def collect(sums: Mapping[str, float], count: float) -> dict[str, float]:
        told.append((sums, count))
        return dict.fromkeys(sums, 0.0)

    for rank in ranks:
        rank.mean(collect)

    def reduced(sums: Mapping[str, float], _: float) -> dict[str, float]:
        count = max(sum(of for _, of in told), 1e-12)
        return {name: sum(of[name] for of, _ in told) / count for name in sums}

    return ranks[0].mean(reduced)


def test_only_responses_of_the_learners_own_weights_count_and_those_that_are_trained_on() -> None:
    parity = Parity(VERSION)
    batch = batch_of(
        response([-1.0, -2.0], VERSION),
        response([-9.0], VERSION - 1),
        response([-9.0, -9.0], VERSION - 1, VERSION),
        response([-9.0], VERSION, weight=0.0),
    )

    parity.add(torch.tensor([-1.25, -1.5, 0.0, 0.0, 0.0, 0.0]), batch)

    assert mean_of(parity) == pytest.approx((0.25 + 0.5) / 2)


def test_the_mean_is_over_the_tokens_of_all_ranks_and_micro_batches() -> None:
    first, second, third = Parity(VERSION), Parity(VERSION), Parity(VERSION)
    first.add(torch.tensor([-1.0]), batch_of(response([-1.5], VERSION)))
    first.add(torch.tensor([-1.0]), batch_of(response([-1.5], VERSION)))
    second.add(torch.tensor([-1.0, -1.0]), batch_of(response([0.0, -1.0], VERSION)))
    third.add(torch.tensor([-1.0]), batch_of(response([0.0], VERSION - 1)))

    assert mean_of(first, second, third) == pytest.approx((0.5 + 0.5 + 1.0) / 4)
    assert mean_of(third, second) == pytest.approx(1.0 / 2)


def test_where_all_is_older_there_is_no_parity() -> None:
    parity = Parity(VERSION)
    parity.add(torch.tensor([-1.0]), batch_of(response([0.0], VERSION - 1)))

    assert mean_of(parity) is None


def test_the_loss_that_is_watched_stays_what_it_is() -> None:
    parity, batch = Parity(VERSION), batch_of(response([-1.0, -2.0], VERSION))
    found = torch.tensor([-1.0, -3.0, -7.0], requires_grad=True)  # the last is a branch's

    loss = parity.watching(lambda logprobs, of: (logprobs * len(of.targets)).sum())(found, batch)

    assert loss.item() == -22.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None and found.grad.tolist() == [2.0, 2.0, 2.0]
    assert mean_of(parity) == pytest.approx(1.0 / 2)
