"""The real `Policy` on a process group of one, with plain gradient descent in the place of DeepSpeed's engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from learner.batching import MicroBatch
from learner.policy import Policy

LEARNING_RATE = 0.05


class PlainEngine:
    """What `Policy` asks of DeepSpeed's."""

    device = "cpu"

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.passes = 0
        self._norm = 0.0

    def __call__(self, batch: MicroBatch, **how: bool) -> torch.Tensor:
        self.passes += 1
        found: torch.Tensor = self.module(batch, **how)
        return found

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        pass

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        own = [p for p in self.module.parameters() if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None]))
        torch.optim.SGD(own, LEARNING_RATE).step()
        self.module.zero_grad()

    def get_lr(self) -> list[float]:
        return [LEARNING_RATE]

    def get_global_grad_norm(self) -> float:
        return self._norm


class PlainPolicy(Policy):
    """One rank; its peers, where there are any, have `rounds` micro-batches."""

    def __init__(self, module: torch.nn.Module, rounds: int = 0) -> None:
        self.engine = self._engine = PlainEngine(module)
        self._rounds = rounds

    def most_over_ranks(self, count: int) -> int:
        return max(super().most_over_ranks(count), self._rounds)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A process group with one member."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
