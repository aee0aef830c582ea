"""Stage 3 with nothing asynchronous, distributed, padded or shared in it: what the system must equal at policy lag 0.

One model in plain PyTorch, one response after the other. It takes the responses that the system sampled: that its own
log-probabilities of them are the engine's, at every step, says that it would have sampled from the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from configs.schema import Recipe
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Prompt
from rollout.trajectory import Group, Score, Trajectory


@dataclass
class Outcome:
    """What the loop did: of each step its loss and the largest difference to the engine's log-probabilities."""

    losses: list[float]
    differences: list[float]
    weights: dict[str, torch.Tensor]


class PlainLoop:
    """The recipe's stage 3, credit apart, leave-one-out baseline, sampled confidence gradient."""

    def __init__(self, recipe: Recipe, folder: str, prompts: Mapping[str, Prompt]) -> None:
        self._recipe = recipe
        self._prompts = prompts
        self._chat = ChatFormat(folder, ImageLimits())
        self._model, self._reference = (
            AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32) for _ in range(2)
        )
        settings = recipe.rl.optimizer
        self._adam = torch.optim.AdamW(
            self._model.parameters(), lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay
        )

    def run(self, batches: Sequence[Sequence[Group]]) -> Outcome:
        """One optimizer step for each batch."""
        outcome = Outcome([], [], {})
        for step, groups in enumerate(batches):
            loss, weight, difference = torch.zeros(()), 0.0, 0.0
            for group in groups:
                scores = [t.score for t in group.trajectories if t.score is not None]
                assert len(scores) == len(group.trajectories)
                for trajectory, score in zip(group.trajectories, scores, strict=True):
                    terms, weights, apart = self._terms(group, trajectory, score, scores)
                    loss, weight = loss + (terms * weights).sum(), weight + float(weights.sum())
                    difference = max(difference, apart)
            self._adam.zero_grad()
            (loss / weight).backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.rl.optimizer.max_grad_norm)
            for parameters in self._adam.param_groups:
                parameters["lr"] = self._learning_rate(step)
            self._adam.step()
            outcome.losses.append(float(loss.detach() / weight))
            outcome.differences.append(difference)
        outcome.weights = self._model.state_dict()
        return outcome

    def _terms(
        self, group: Group, trajectory: Trajectory, score: Score, scores: Sequence[Score]
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Loss and weight of each response token, and how far its log-probability is from the engine's."""
        rl, rewards = self._recipe.rl, self._recipe.rewards
        logprobs = self._logprobs(self._model, group, trajectory)
        with torch.no_grad():
            log_ratio = self._logprobs(self._reference, group, trajectory) - logprobs
        sampled = torch.from_numpy(trajectory.sample.logprobs.copy())
        stated = torch.zeros(len(logprobs), dtype=torch.bool)
        if score.confidence_span is not None:
            stated[score.confidence_span.start : score.confidence_span.end] = True
        advantage = torch.where(
            stated, self._confidence_advantage(score, scores), self._answer_advantage(score, scores)
        )
        ratio = (logprobs.detach() - sampled).exp().clamp(max=rl.importance_cap)
        with_gradient = log_ratio + logprobs.detach() - logprobs
        divergence = torch.where(stated, 0.0, with_gradient.exp() - 1 - with_gradient)
        terms = -ratio * advantage * logprobs + rl.kl_weight * divergence
        weights = torch.where(stated, rewards.confidence_token_weight, 1.0)
        return terms, weights, float((logprobs.detach() - sampled).abs().max())

    def _logprobs(self, model: PreTrainedModel, group: Group, trajectory: Trajectory) -> torch.Tensor:
        prompt = self._chat.expand(self._prompts[group.prompt_id])
        ids = torch.tensor([[*prompt.token_ids.tolist(), *trajectory.sample.tokens.tolist()]])
        logits = model(
            input_ids=ids,
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
            mm_token_type_ids=(ids == self._chat.image_token_id).long(),
        ).logits[0]
        logits[:, list(self._chat.barred_token_ids())] = -1e9
        before = logits[len(prompt.token_ids) - 1 : -1] / self._recipe.rl.temperature
        return before.log_softmax(-1).gather(1, ids[0, len(prompt.token_ids) :, None])[:, 0]

    def _answer_advantage(self, score: Score, scores: Sequence[Score]) -> float:
        weights = self._recipe.rewards.weights

        def reward(member: Score) -> float:
            return weights.correctness * member.parts["correctness"] + weights.format * member.parts["format"]

        others = [reward(member) for member in scores if member is not score]
        return reward(score) - sum(others) / len(others)

    def _confidence_advantage(self, score: Score, scores: Sequence[Score]) -> float:
        """What the confidence scores on its own target, less what the others' would have scored there."""
        if score.confidence is None or score.target is None:
            return 0.0
        others = [s.confidence for s in scores if s is not score and s.confidence is not None]
        if not others:
            return 0.0
        own = (score.confidence - score.target) ** 2
        gained = sum((other - score.target) ** 2 - own for other in others) / len(others)
        return self._recipe.rewards.weights.calibration * gained

    def _learning_rate(self, step: int) -> float:
        settings, steps = self._recipe.rl.optimizer, self._recipe.rl.steps
        if step < settings.warmup_steps:
            return settings.learning_rate * (step + 1) / settings.warmup_steps
        progress = (step - settings.warmup_steps) / (steps - settings.warmup_steps)
        falling = (1 + math.cos(math.pi * progress)) / 2
        return settings.learning_rate * (settings.final_fraction + (1 - settings.final_fraction) * falling)
