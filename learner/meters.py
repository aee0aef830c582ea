"""What a step's tokens say of engine and learner: for all of them, and for those of the confidence apart.

A few confidence tokens stand among many others: what goes wrong with them alone does not show in the mean of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from learner.batching import MicroBatch
from learner.kl import kl_k3
from learner.losses import TokenLosses

# (sums, count) -> the sums over all ranks divided by that of the counts: `Policy.mean_over_ranks`.
MeanOverRanks = Callable[[Mapping[str, float], float], dict[str, float]]


@dataclass(frozen=True, slots=True)
class TokenMeters:
    """Means over tokens of the global batch that are trained on, each counted once whatever it weighs."""

    mismatch: float  # mean |log p_learner - log p_engine|, nats: arithmetic and policy lag together
    behaviour_kl: float  # k3 estimate of KL(engine || learner), nats a token
    importance_ratio: float  # p_learner / p_engine of the token, before any correction
    capped_share: float  # share of tokens whose ratio was capped or clipped
    masked_share: float  # share of tokens that were left out for their ratio
    reference_kl: float | None = None  # k3 estimate of KL(policy || reference), nats a token; None without a reference


def token_values(
    logprobs: torch.Tensor, batch: MicroBatch, corrected: TokenLosses, reference_logprobs: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """What `TokenMeters` are means of, for each token [N] of a micro-batch."""
    found = logprobs.detach()
    difference = found - batch.behaviour_logprobs
    values = {
        "mismatch": difference.abs(),
        "behaviour_kl": kl_k3(batch.behaviour_logprobs, found),
        "importance_ratio": difference.exp(),
        "capped_share": corrected.capped.float(),
        "masked_share": corrected.masked.float(),
    }
    if reference_logprobs is not None:
        values["reference_kl"] = kl_k3(found, reference_logprobs)
    return values


@dataclass(slots=True)
class TokenSums:
    """Sums over this rank's tokens, gathered while the loss is computed."""

    values: dict[str, float] = field(default_factory=dict)
    count: float = 0.0

    def add(self, counted: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
        """Add a micro-batch's values [N], where `counted` [N] is true."""
        self.count += float(counted.sum())
        for name, tokens in values.items():
            self.values[name] = self.values.get(name, 0.0) + float(tokens[counted].sum())

    def meters(self, mean_over_ranks: MeanOverRanks) -> TokenMeters | None:
        """The means over all ranks, which must all ask; None where no token was counted."""
        if mean_over_ranks({"counted": self.count}, self.count)["counted"] == 0:
            return None
        return TokenMeters(**mean_over_ranks(self.values, self.count))
