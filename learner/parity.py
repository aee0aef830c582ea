"""Whether engine and learner compute the same policy, apart from policy lag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from learner.batching import MicroBatch

if TYPE_CHECKING:
    from learner.policy import BatchLoss  # brings deepspeed, which a mean of differences does without


class Parity:
    """Mean |log p_learner - log p_engine| over a step's responses that were sampled under the learner's own weights.

    What is left of the mismatch there is arithmetic: precision, temperature, pictures prepared otherwise.
    A response that new weights came under does not count, its newest tokens neither: the engine sampled
    them over keys and values of the older weights. One that waited in the engine's queue while they came is not
    told apart: it may stand behind a prompt that a sibling had computed under the older ones.
    """

    def __init__(self, version: int) -> None:
        """`version` is the learner's before the step."""
        self._version = version
        self._sum = self._tokens = 0.0

    def watching(self, loss: BatchLoss) -> BatchLoss:
        """The same loss, its log-probabilities looked at on their way."""

        def watched(logprobs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
            self.add(logprobs[: len(batch.targets)].detach(), batch)
            return loss(logprobs, batch)

        return watched

    def add(self, logprobs: torch.Tensor, batch: MicroBatch) -> None:
        """Count a micro-batch's tokens, given the learner's log-probabilities [N] of them."""
        others = torch.bincount(batch.sequence, batch.versions != self._version)[batch.sequence]
        counted = (batch.weights > 0) & (others == 0)
        self._sum += float((logprobs - batch.behaviour_logprobs).abs()[counted].sum())
        self._tokens += float(counted.sum())

    def mean(self, over_ranks: Callable[[Mapping[str, float], float], dict[str, float]]) -> float | None:
        """The mean over all ranks' tokens, in nats, by `Policy.mean_over_ranks`; None where no rank has any."""
        found = over_ranks({"parity": self._sum, "any": self._tokens}, self._tokens)
        return found["parity"] if found["any"] else None
