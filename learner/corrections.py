"""From a recipe's correction to the losses of a micro-batch."""

from __future__ import annotations

import torch

from configs.schema import Correction, Proximal, Rl
from learner.batching import MicroBatch
from learner.losses import (
    TokenLosses,
    cispo,
    decoupled_ppo,
    gspo,
    icepop,
    interpolated_proximal,
    policy_gradient,
    truncated_importance,
)


def corrected_losses(logprobs: torch.Tensor, batch: MicroBatch, rl: Rl, version: int) -> TokenLosses:
    """Policy-gradient losses [N] of a micro-batch's tokens under `rl.correction`; `version` is the learner's.

    Where the confidence gradient is exact this is for all other tokens: the branches are on policy.
    """
    behaviour, advantages = batch.behaviour_logprobs, batch.advantages
    match rl.correction:
        case Correction.NONE:
            return policy_gradient(logprobs, advantages)
        case Correction.TRUNCATED:
            return truncated_importance(logprobs, behaviour, advantages, _set(rl.importance_cap))
        case Correction.ICEPOP:
            return icepop(logprobs, behaviour, advantages, _set(rl.ratio_low), _set(rl.ratio_high))
        case Correction.CISPO:
            return cispo(logprobs, behaviour, advantages, _set(rl.ratio_low), _set(rl.ratio_high))
        case Correction.GSPO:
            return gspo(logprobs, behaviour, advantages, batch.sequence, _set(rl.ratio_low), _set(rl.ratio_high))
        case Correction.DECOUPLED_PPO:
            proximal = _proximal(logprobs, batch, rl, version)
            low, high, cap = _set(rl.ratio_low), _set(rl.ratio_high), _set(rl.importance_cap)
            return decoupled_ppo(logprobs, behaviour, proximal, advantages, low, high, cap)


def _proximal(logprobs: torch.Tensor, batch: MicroBatch, rl: Rl, version: int) -> torch.Tensor:
    if rl.proximal is Proximal.INTERPOLATED:
        return interpolated_proximal(logprobs, batch.behaviour_logprobs, version - batch.versions)
    # Before the batch's first optimizer step the proximal policy is the current one.
    return logprobs.detach() if batch.proximal_logprobs is None else batch.proximal_logprobs


def _set(number: float | None) -> float:
    assert number is not None, "`Rl` sets what its correction takes"
    return number
