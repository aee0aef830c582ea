"""Token losses: pure functions of log-probabilities. Their weighted mean is `Policy.step`'s business."""

from __future__ import annotations

import torch


def negative_log_likelihood(logprobs: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the given tokens [N], for SFT."""
    return -logprobs


def truncated_importance(
    logprobs: torch.Tensor, behaviour_logprobs: torch.Tensor, advantages: torch.Tensor, cap: float
) -> torch.Tensor:
    """Policy gradient with truncated importance sampling per token [N].

    The gradient is -min(ratio, cap) * advantage * grad log p with ratio = p / p_behaviour: the
    truncation of IMPALA (arXiv 1802.01561, eq. 1), with the ratio held constant. It corrects both for
    weights that changed during generation and for the engine's arithmetic differing from the learner's.
    """
    ratio = torch.exp(logprobs.detach() - behaviour_logprobs)
    return -ratio.clamp(max=cap) * advantages * logprobs


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """The k3 estimate of KL(policy || reference) for sampled tokens [N]; never negative.

    r - 1 - log r with r = p_reference / p_policy (Schulman 2020, "Approximating KL divergence").
    """
    log_ratio = reference_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def on_answers(losses: torch.Tensor, confidence_mask: torch.Tensor) -> torch.Tensor:
    """Token losses [N] with those of confidence tokens left out.

    For the KL to a reference: stage 3 is there to move confidences, and to leave alone what they are about.
    """
    return torch.where(confidence_mask, 0.0, losses)
