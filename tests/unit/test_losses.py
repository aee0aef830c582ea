from __future__ import annotations

import pytest
import torch

from learner.losses import (
    TokenLosses,
    cispo,
    decoupled_ppo,
    gspo,
    icepop,
    interpolated_proximal,
    negative_log_likelihood,
    policy_gradient,
    truncated_importance,
)

# Log-probabilities whose ratios are 1, 4 and 1/4, and the ways these are capped and masked.
NOW = torch.tensor([0.25, 0.8, 0.1]).log()
ENGINE = torch.tensor([0.25, 0.2, 0.4]).log()
ADVANTAGES = torch.tensor([0.5, 1.0, -2.0])


def gradient(losses: TokenLosses, logprobs: torch.Tensor) -> list[float]:
    found: list[float] = torch.autograd.grad(losses.losses.sum(), logprobs)[0].tolist()
    return found


def test_supervised_loss_is_the_cross_entropy_of_the_given_tokens() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    targets = torch.tensor([1, 0])

    loss = negative_log_likelihood(torch.log_softmax(logits, -1)[torch.arange(2), targets])

    assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))


def test_a_ratio_is_left_capped_masked_or_clipped_by_hand() -> None:
    now = NOW.clone().requires_grad_()

    plain = policy_gradient(now, ADVANTAGES)
    truncated = truncated_importance(now, ENGINE, ADVANTAGES, cap=2.0)
    masked = icepop(now, ENGINE, ADVANTAGES, low=0.5, high=2.0)
    clipped = cispo(now, ENGINE, ADVANTAGES, low=0.5, high=2.0)
    # Up to 4 with a gain and down to 1/4 with a loss: both have gone further than the clip lets them.
    held = decoupled_ppo(now, ENGINE, ENGINE, ADVANTAGES, low=0.5, high=2.0, cap=9.0)

    assert gradient(plain, now) == pytest.approx([-0.5, -1.0, 2.0])
    assert gradient(truncated, now) == pytest.approx([-0.5, -2.0, 0.5])
    assert gradient(masked, now) == pytest.approx([-0.5, 0.0, 0.0])
    assert gradient(clipped, now) == pytest.approx([-0.5, -2.0, 1.0])
    assert gradient(held, now) == pytest.approx([-0.5, 0.0, 0.0])
    assert [found.capped.tolist() for found in (plain, truncated, masked, clipped, held)] == [
        [False] * 3,
        [False, True, False],
        [False] * 3,
        [False, True, True],
        [False, True, True],
    ]
    assert masked.masked.tolist() == [False, True, True]
    assert not any(found.masked.any() for found in (plain, truncated, clipped, held))


def test_ppo_s_clip_lets_a_ratio_come_back() -> None:
    now = NOW.clone().requires_grad_()

    losses = decoupled_ppo(now, ENGINE, ENGINE, -ADVANTAGES, low=0.5, high=2.0, cap=9.0)

    assert gradient(losses, now) == pytest.approx([0.5, 4.0, -0.5])
    assert not losses.capped.any()


def test_what_is_clipped_is_the_step_from_the_proximal_policy_and_what_is_capped_the_way_to_it() -> None:
    now, proximal = NOW.clone().requires_grad_(), torch.tensor([0.25, 0.7, 0.1]).log()

    losses = decoupled_ppo(now, ENGINE, proximal, ADVANTAGES, low=0.5, high=2.0, cap=2.0)

    # From the proximal policy the second goes by 8/7, which is not clipped; 7/2 from the engine's to it is capped.
    assert gradient(losses, now) == pytest.approx([-0.5, -2.0 * 8 / 7, 2.0 / 4])
    assert losses.capped.tolist() == [False, True, False]


def test_a_response_s_tokens_share_the_root_of_its_ratio() -> None:
    now = torch.tensor([0.9, 0.4, 0.5, 0.2]).log().requires_grad_()
    engine = torch.tensor([0.1, 0.4, 0.2, 0.2]).log()
    sequence, advantages = torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, -1.0, 1.0, -1.0])

    losses = gspo(now, engine, advantages, sequence, low=0.5, high=2.0)

    # Ratios of 9 and 1 are 3 for both, which is clipped where it gained; those of 2.5 and 1 are 1.58.
    root = 2.5**0.5
    assert losses.losses.tolist() == pytest.approx([-2.0, 3.0, -root, root])
    assert gradient(losses, now) == pytest.approx([0.0, 3.0, -root, root])
    assert losses.capped.tolist() == [True, False, False, False]


def test_responses_of_one_token_are_clipped_as_tokens_are() -> None:
    generator = torch.Generator().manual_seed(0)
    now = (-4 * torch.rand(200, generator=generator)).requires_grad_()
    engine, advantages = -4 * torch.rand(200, generator=generator), torch.randn(200, generator=generator)

    by_response = gspo(now, engine, advantages, torch.arange(200), low=0.7, high=1.6)
    by_token = decoupled_ppo(now, engine, engine, advantages, low=0.7, high=1.6, cap=9.0)

    torch.testing.assert_close(by_response.losses, by_token.losses)
    assert gradient(by_response, now) == pytest.approx(gradient(by_token, now))
    assert by_response.capped.tolist() == by_token.capped.tolist()
    assert 0 < int(by_response.capped.sum()) < 200


def test_where_engine_and_learner_agree_all_have_the_plain_policy_gradient() -> None:
    now = NOW.clone().requires_grad_()
    same, sequence = NOW.clone(), torch.tensor([0, 0, 1])
    corrected = [
        truncated_importance(now, same, ADVANTAGES, cap=2.0),
        icepop(now, same, ADVANTAGES, low=0.5, high=2.0),
        cispo(now, same, ADVANTAGES, low=0.5, high=2.0),
        gspo(now, same, ADVANTAGES, sequence, low=0.9997, high=1.0004),
        decoupled_ppo(now, same, same, ADVANTAGES, low=0.8, high=1.2, cap=2.0),
    ]

    plain = gradient(policy_gradient(now, ADVANTAGES), now)

    for losses in corrected:
        assert gradient(losses, now) == pytest.approx(plain)
        assert not losses.capped.any() and not losses.masked.any()


def test_of_so_many_versions_the_proximal_policy_takes_the_last_one_back() -> None:
    now, lags = torch.full((4,), -1.0, requires_grad=True), torch.tensor([0, 1, 2, 4])

    proximal = interpolated_proximal(now, torch.full((4,), -3.0), lags)

    assert proximal.tolist() == [-1.0, -3.0, -2.0, -1.5]
    assert not proximal.requires_grad


@pytest.mark.parametrize("seed", range(3))
def test_uncapped_it_is_an_unbiased_gradient_of_the_expected_reward(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, generator=generator, requires_grad=True)
    behaviour = torch.log_softmax(torch.randn(4, generator=generator), -1)
    rewards = torch.randn(4, generator=generator)
    exact = torch.autograd.grad((torch.softmax(logits, -1) * rewards).sum(), logits)[0]

    # Every action once, weighted by how often the behaviour policy would take it.
    logprobs = torch.log_softmax(logits, -1)
    loss = (behaviour.exp() * truncated_importance(logprobs, behaviour, rewards, cap=1e9).losses).sum()

    assert torch.allclose(-torch.autograd.grad(loss, logits)[0], exact, atol=1e-5)
