from __future__ import annotations

import pytest
import torch

from learner.losses import kl_k3, negative_log_likelihood, on_answers, truncated_importance


def test_the_gradient_is_the_capped_ratio_times_the_advantage() -> None:
    logprobs = torch.tensor([-1.0, -1.0, -2.0], requires_grad=True)
    behaviour = torch.tensor([-1.0, -3.0, -1.0])
    advantages = torch.tensor([0.5, 1.0, -2.0])

    truncated_importance(logprobs, behaviour, advantages, cap=2.0).sum().backward()

    # Ratios are 1, e^2 (capped at 2) and e^-1.
    expected = -torch.tensor([1.0, 2.0, torch.e**-1]) * advantages
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, expected)


@pytest.mark.parametrize("seed", range(3))
def test_uncapped_it_is_an_unbiased_gradient_of_the_expected_reward(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, generator=generator, requires_grad=True)
    behaviour = torch.log_softmax(torch.randn(4, generator=generator), -1)
    rewards = torch.randn(4, generator=generator)
    exact = torch.autograd.grad((torch.softmax(logits, -1) * rewards).sum(), logits)[0]

    # Every action once, weighted by how often the behaviour policy would take it.
    logprobs = torch.log_softmax(logits, -1)
    loss = (behaviour.exp() * truncated_importance(logprobs, behaviour, rewards, cap=1e9)).sum()

    assert torch.allclose(-torch.autograd.grad(loss, logits)[0], exact, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_k3_is_never_negative_and_its_expectation_is_the_divergence(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    policy = torch.log_softmax(torch.randn(5, generator=generator), -1)
    reference = torch.log_softmax(torch.randn(5, generator=generator), -1)

    estimates = kl_k3(policy, reference)

    assert (estimates >= 0).all()
    assert (policy.exp() * estimates).sum() == pytest.approx(
        float((policy.exp() * (policy - reference)).sum()), abs=1e-5
    )


def test_supervised_loss_is_the_cross_entropy_of_the_given_tokens() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    targets = torch.tensor([1, 0])

    loss = negative_log_likelihood(torch.log_softmax(logits, -1)[torch.arange(2), targets])

    assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))


def test_a_kl_on_answers_neither_counts_nor_moves_confidence_tokens() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    divergence = kl_k3(logprobs, torch.full((3,), -1.5))
    alone = divergence.detach()

    held = on_answers(divergence, torch.tensor([False, True, False]))
    held.sum().backward()

    assert held.tolist() == [float(alone[0]), 0.0, float(alone[2])]
    assert logprobs.grad is not None
    assert (logprobs.grad != 0).tolist() == [True, False, True]
