from __future__ import annotations

import pytest
import torch

from learner.kl import kl_k1, kl_k2, kl_k3, on_answers


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a policy over five actions, its log-probabilities, and a reference's."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(5, generator=generator, dtype=torch.float64), -1)
    return logits, torch.log_softmax(logits, -1), reference


def gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(3))
def test_k1_and_k3_are_the_divergence_on_average_and_k2_and_k3_are_never_negative(seed: int) -> None:
    _, policy, reference = drawn(seed)
    divergence = (policy.exp() * (policy - reference)).sum()

    k1, k2, k3 = (estimate(policy, reference) for estimate in (kl_k1, kl_k2, kl_k3))

    assert (k2 >= 0).all() and (k3 >= 0).all() and (k1 < 0).any()
    torch.testing.assert_close((policy.exp() * k1).sum(), divergence)
    torch.testing.assert_close((policy.exp() * k3).sum(), divergence)
    torch.testing.assert_close(k2, (policy - reference) ** 2 / 2)


@pytest.mark.parametrize("seed", range(3))
def test_as_losses_k1_pulls_nowhere_k2_down_one_divergence_and_k3_down_the_other(seed: int) -> None:
    logits, policy, reference = drawn(seed)
    sampled = policy.exp().detach()  # every action as often as the policy samples it

    k1, k2, k3 = (gradient((sampled * kl(policy, reference)).sum(), logits) for kl in (kl_k1, kl_k2, kl_k3))

    torch.testing.assert_close(k1, torch.zeros_like(k1))
    torch.testing.assert_close(k2, gradient((policy.exp() * (policy - reference)).sum(), logits))
    torch.testing.assert_close(k3, gradient((reference.exp() * (reference - policy)).sum(), logits))


def test_a_kl_on_answers_neither_counts_nor_moves_confidence_tokens() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    divergence = kl_k3(logprobs, torch.full((3,), -1.5))
    alone = divergence.detach()

    held = on_answers(divergence, torch.tensor([False, True, False]))
    held.sum().backward()

    assert held.tolist() == [float(alone[0]), 0.0, float(alone[2])]
    assert logprobs.grad is not None
    assert (logprobs.grad != 0).tolist() == [True, False, True]
