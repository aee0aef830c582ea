"""Estimates of KL(policy || reference) from tokens [N] that the policy sampled, and what they are worth as a loss.

With r = p_reference / p_policy (Schulman, Approximating KL Divergence, 2020):

    k1   -log r            unbiased, of either sign
    k2   (log r)^2 / 2     biased, never negative
    k3   r - 1 - log r     unbiased, never negative

A good estimate need not have a good gradient (arXiv 2510.01555), since differentiating it leaves out how the samples
would change. On average over the policy's own samples

    k1's is 0: it is that of log p, whatever the reference. As a loss it adds noise and holds nothing.
    k2's is that of KL(policy || reference): log(p_policy / p_reference) times that of log p.
    k3's is that of KL(reference || policy): it pulls the harder, the more the policy has given up what the reference
    says. Near the reference the two are alike.

So `rl.kl_estimator` is k2 or k3. k1 made right, its value a constant before the gradient of log p, would be k2.
Tokens of older weights are not the policy's own: their importance ratio, left out here, is how far this is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from configs.schema import KlEstimator


def kl_k1(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Estimates -log r [N]: to build on, not to train with."""
    return logprobs - reference_logprobs


def kl_k2(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Estimates (log r)^2 / 2 [N]; never negative."""
    return kl_k1(logprobs, reference_logprobs).square() / 2


def kl_k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Estimates r - 1 - log r [N]; never negative."""
    difference = kl_k1(logprobs, reference_logprobs)
    return torch.expm1(-difference) + difference


KL_LOSSES: Mapping[KlEstimator, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    KlEstimator.K2: kl_k2,
    KlEstimator.K3: kl_k3,
}


def on_answers(losses: torch.Tensor, confidence_mask: torch.Tensor) -> torch.Tensor:
    """Token losses [N] with those of confidence tokens left out.

    For the KL to a reference: stage 3 is there to move confidences, and to leave alone what they are about.
    """
    return torch.where(confidence_mask, 0.0, losses)
