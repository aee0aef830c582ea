"""Every correction of a recipe, on rows of several responses, against plain loops over the responses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import Rl
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.corrections import corrected_losses
from rollout.chat import Expanded
from tests.unit.policy_losses import losses_of

VERSION = 7
RATIOS = {"ratio_low": 0.6, "ratio_high": 1.5}
CORRECTIONS = [
    {"correction": "none"},
    {"correction": "truncated", "importance_cap": 1.3},
    {"correction": "icepop", **RATIOS},
    {"correction": "cispo", **RATIOS},
    {"correction": "gspo", **RATIOS},
    {"correction": "decoupled_ppo", "proximal": "recomputed", "importance_cap": 1.3, **RATIOS},
    {"correction": "decoupled_ppo", "proximal": "interpolated", "importance_cap": 1.3, **RATIOS},
]


def settings(correction: dict[str, object]) -> Rl:
    return Rl.model_validate({"steps": 1, "optimizer": {"learning_rate": 1.0}, **correction})


def responses(rng: np.random.Generator, prompt: Expanded, count: int) -> list[TrainingSequence]:
    """Responses of random lengths, sampled under one or two versions."""
    made = []
    for length in rng.integers(1, 7, size=count):
        versions = np.sort(rng.integers(VERSION - 3, VERSION + 1, size=2)).repeat(length)[:length]
        made.append(
            TrainingSequence(
                prompt,
                rng.integers(1, 50, size=length).astype(np.int32),
                np.ones(length, np.float32),
                advantages=rng.normal(size=length).astype(np.float32),
                behaviour_logprobs=-rng.exponential(size=length).astype(np.float32),
                versions=versions,
            )
        )
    return made


def rows(seed: int) -> tuple[list[list[TrainingSequence]], MicroBatch]:
    rng = np.random.default_rng(seed)
    prompts = [Expanded(np.array([1, 2, n], np.int32), None, None) for n in (3, 4)]
    made = [responses(rng, prompt, count) for prompt, count in zip(prompts, (3, 2), strict=True)]
    return made, collate(made, pad_token_id=0, image_token_id=None)


@pytest.mark.parametrize("correction", CORRECTIONS, ids=lambda c: f"{c['correction']}-{c.get('proximal', '')}")
@pytest.mark.parametrize("seed", range(5))
def test_losses_and_gradients_are_those_of_the_responses_one_by_one(correction: dict[str, object], seed: int) -> None:
    rl, (made, batch) = settings(correction), rows(seed)
    generator = torch.Generator().manual_seed(seed)
    near = batch.behaviour_logprobs + 0.7 * torch.randn(len(batch.targets), generator=generator)
    now = near.clamp(max=-0.01).requires_grad_()
    first = (now.detach() + 0.5 * torch.randn(len(now), generator=generator)).clamp(max=-0.01)
    batch = replace(batch, proximal_logprobs=first)

    found = corrected_losses(now, batch, rl, VERSION)
    (gradient,) = torch.autograd.grad(found.losses.sum(), now)

    start = 0
    for sequence in (member for row in made for member in row):
        assert sequence.advantages is not None and sequence.behaviour_logprobs is not None
        assert sequence.versions is not None
        own = slice(start, start + len(sequence.response_tokens))
        slow = losses_of(
            rl,
            now[own].tolist(),
            sequence.behaviour_logprobs.tolist(),
            sequence.advantages.tolist(),
            (VERSION - sequence.versions).tolist(),
            first[own].tolist(),
        )
        assert found.losses[own].tolist() == pytest.approx([loss for loss, _ in slow], rel=1e-4, abs=1e-6)
        assert gradient[own].tolist() == pytest.approx([derivative for _, derivative in slow], rel=1e-4, abs=1e-6)
        start = own.stop
    assert start == len(now)


def test_before_the_first_optimizer_step_the_recomputed_policy_is_the_current_one() -> None:
    recomputed = settings({"correction": "decoupled_ppo", "importance_cap": 1.3})
    truncated = settings({"correction": "truncated", "importance_cap": 1.3})
    _, batch = rows(0)
    now = torch.full((len(batch.targets),), -0.5, requires_grad=True)

    gradients = [
        torch.autograd.grad(corrected_losses(now, batch, rl, VERSION).losses.sum(), now)[0]
        for rl in (recomputed, truncated)
    ]

    torch.testing.assert_close(*gradients)
