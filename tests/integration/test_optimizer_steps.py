"""Steps of a real DeepSpeed engine in bf16, by one rank, against torch's AdamW on fp32 master weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from configs.schema import Learner, Optimizer, Precision
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.policy import Policy, Rank, ResponseLogprobs, join, load_model
from rollout.chat import Expanded

pytestmark = pytest.mark.integration

OPTIMIZER = Optimizer(learning_rate=5e-3, betas=(0.9, 0.95), weight_decay=0.1, warmup_steps=0, final_fraction=1.0)
STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")  # so that what `join` sets is taken back
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        join(Rank(0, 1, address, 60.0))
        yield
        dist.destroy_process_group()


def micro_batches(number: int) -> list[MicroBatch]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(number):
        prompt = Expanded(rng.integers(70, 200, 5).astype(np.int32), None, None)
        sequence = TrainingSequence(prompt, rng.integers(70, 200, 7).astype(np.int32), np.ones(7, np.float32))
        made.append(collate([[sequence]], pad_token_id=0, image_token_id=None))
    return made


def loss(logprobs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    return -(logprobs * batch.weights).sum()


def by_torch(folder: Path, learner: Learner, batches: Sequence[MicroBatch]) -> dict[str, torch.Tensor]:
    """The weights after the steps: gradients in bf16, all else in fp32."""
    model = load_model(str(folder), learner).train()
    module, parameters = ResponseLogprobs(model, (), 1.0), dict(model.named_parameters())
    masters = {name: p.detach().float().requires_grad_() for name, p in parameters.items()}
    adam = torch.optim.AdamW(
        masters.values(), lr=OPTIMIZER.learning_rate, betas=OPTIMIZER.betas, weight_decay=OPTIMIZER.weight_decay
    )
    for _ in range(STEPS):
        for master in masters.values():
            master.grad = torch.zeros_like(master)
        for batch in batches:
            model.zero_grad()
            (loss(module(batch), batch) / sum(b.divisor for b in batches)).backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    masters[name].grad += parameter.grad.float()
        torch.nn.utils.clip_grad_norm_(masters.values(), OPTIMIZER.max_grad_norm)
        adam.step()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(masters[name])
    return masters


def by_deepspeed(folder: Path, learner: Learner, batches: Sequence[MicroBatch]) -> dict[str, torch.Tensor]:
    policy = Policy(str(folder), learner, OPTIMIZER, steps=STEPS)
    for _ in range(STEPS):
        policy.step(batches, loss)
    (weights,) = policy.weight_buckets(2**40)
    return weights


def of_all(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].detach().float().flatten() for name in sorted(weights)])


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_the_first_steps_are_adams(tiny_model: Path, zero_stage: int) -> None:
    learner = Learner(precision=Precision.BF16, zero_stage=zero_stage)
    before = of_all(dict(load_model(str(tiny_model), learner).named_parameters()))

    found = of_all(by_deepspeed(tiny_model, learner, micro_batches(1)))

    right = of_all(by_torch(tiny_model, learner, micro_batches(1)))
    # Where a gradient is next to nothing its sign, and so Adam's step, is a matter of rounding.
    assert (found - right).norm() < 0.1 * (right - before).norm()


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_nothing_is_lost_of_the_gradients_of_many_micro_batches(tiny_model: Path, zero_stage: int) -> None:
    still = OPTIMIZER.model_copy(update={"learning_rate": 1e-12})
    policy = Policy(str(tiny_model), Learner(precision=Precision.BF16, zero_stage=zero_stage), still, steps=2)
    (batch,) = micro_batches(1)

    def norm(alike: int) -> float:
        policy.step([batch] * alike, loss)
        found = policy.grad_norm()
        assert found is not None
        return found

    # A sum of equal values in bf16 stands still before the 257th at the latest.
    assert norm(400) == pytest.approx(norm(1), rel=5e-3)
