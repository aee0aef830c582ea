"""Token losses: pure functions of log-probabilities. Their weighted mean is `Policy.step`'s business.

Those of stage 3 differ in what they make of the importance ratio, p_learner / p_engine: it corrects both for weights
that changed since a token was sampled and for the engine's arithmetic differing from the learner's. Where it is 1 all
have the gradient of the plain policy gradient. Which one a recipe asks for is `learner.corrections`' business.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class TokenLosses(NamedTuple):
    """Losses of N tokens, and what became of their ratios."""

    losses: torch.Tensor  # [N]
    capped: torch.Tensor  # [N] bool, the ratio is held at a bound; in PPO's clip the token then has no gradient
    masked: torch.Tensor  # [N] bool, the token is left out


def negative_log_likelihood(logprobs: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the given tokens [N], for SFT."""
    return -logprobs


def policy_gradient(logprobs: torch.Tensor, advantages: torch.Tensor) -> TokenLosses:
    """The plain policy gradient per token [N]: -advantage * grad log p, as if the policy had sampled it.

    REINFORCE (Williams, Simple Statistical Gradient-Following Algorithms, 1992).
    """
    return TokenLosses(-advantages * logprobs, _none(logprobs), _none(logprobs))


def truncated_importance(
    logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, advantages: torch.Tensor, cap: float
) -> TokenLosses:
    """Policy gradient with truncated importance sampling per token [N].

    The gradient is -min(ratio, cap) * advantage * grad log p: the truncation of IMPALA (arXiv 1802.01561, eq. 1),
    with the ratio held constant.
    """
    ratio = _ratio(logprobs.detach(), behaviour_logprobs)
    return TokenLosses(-ratio.clamp(max=cap) * advantages * logprobs, ratio > cap, _none(logprobs))


def icepop(
    logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, advantages: torch.Tensor, low: float, high: float
) -> TokenLosses:
    """Policy gradient with importance sampling per token [N], nothing from tokens whose ratio is out of [low, high].

    IcePop's mask M (arXiv 2510.18855): a ratio that far off says that engine and learner disagree about the token, so
    it is left out and not clipped. There the ratio is of the two arithmetics under the same weights and PPO's clip
    follows; here it is of the policy to the engine, policy lag included, and held constant.
    """
    ratio = _ratio(logprobs.detach(), behaviour_logprobs)
    masked = (ratio < low) | (ratio > high)
    return TokenLosses(-ratio.masked_fill(masked, 0.0) * advantages * logprobs, _none(logprobs), masked)


def cispo(
    logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, advantages: torch.Tensor, low: float, high: float
) -> TokenLosses:
    """Policy gradient with a clipped importance weight per token [N].

    The gradient is -clip(ratio, low, high) * advantage * grad log p (CISPO, arXiv 2506.13585): unlike in
    PPO's clip every token keeps one.
    """
    ratio = _ratio(logprobs.detach(), behaviour_logprobs)
    held = ratio.clamp(low, high)
    return TokenLosses(-held * advantages * logprobs, held != ratio, _none(logprobs))


def gspo(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    sequence: torch.Tensor,
    low: float,
    high: float,
) -> TokenLosses:
    """PPO's clip with one ratio for all tokens of a response, per token [N].

    The ratio is the geometric mean of the tokens' (GSPO, arXiv 2507.18071), all of the response's sampled tokens
    counted alike. Advantages may differ within a response, as credit given apart has them: so this is its
    token-level form (GSPO-token), in which each token's log p carries the gradient of the ratio. For the paper's
    objective (eq. 5) take the mean over responses, not over tokens.

    `sequence` [N] numbers the response that each token is of, from 0; a response is never split over micro-batches.
    """
    together = torch.exp(_mean_of_each(logprobs.detach() - behaviour_logprobs, sequence))
    ratio = together * torch.exp(logprobs - logprobs.detach())
    losses, capped = _clipped(ratio, advantages, low, high)
    return TokenLosses(losses, capped, _none(logprobs))


def decoupled_ppo(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    proximal_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    low: float,
    high: float,
    cap: float,
) -> TokenLosses:
    """PPO's clip around a proximal policy, weighted by that policy's ratio to the engine's, per token [N].

    The decoupled objective of AReaL (arXiv 2505.24298; first in arXiv 2110.00641): the step is kept close to
    recent weights instead of to the stale ones that sampled. The weight p_proximal / p_engine is constant and capped.
    """
    weight = _ratio(proximal_logprobs, behaviour_logprobs)
    losses, capped = _clipped(_ratio(logprobs, proximal_logprobs), advantages, low, high)
    return TokenLosses(weight.clamp(max=cap) * losses, capped | (weight > cap), _none(logprobs))


def interpolated_proximal(logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, lags: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [N] of a proximal policy between the engine's and the current one, without gradient.

    log p_behaviour / lag + (1 - 1 / lag) log p, and log p itself where there is no lag (A-3PO, arXiv 2512.06547): of
    so many versions the last one is taken back. `lags` [N] count weight versions since a token was sampled.
    """
    share = torch.where(lags > 0, 1.0 / lags.clamp(min=1), 0.0)
    return torch.lerp(logprobs.detach(), behaviour_logprobs, share)


def _ratio(logprobs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return torch.exp(logprobs - others)


def _clipped(
    ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's pessimistic surrogate as a loss (arXiv 1707.06347, eq. 7), and where the clip is what counts."""
    free, held = ratio * advantages, ratio.clamp(low, high) * advantages
    return -torch.minimum(free, held), (held < free).detach()


def _mean_of_each(values: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
    """The mean over its sequence, for each token [N]."""
    counts = torch.bincount(sequence)
    sums = values.new_zeros(len(counts)).index_add(0, sequence, values)
    return (sums / counts)[sequence]


def _none(logprobs: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(logprobs, dtype=torch.bool)
