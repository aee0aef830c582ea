"""One rank of reinforcement learning: groups in, one optimizer step, weights out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from configs.schema import ConfidenceGradient, Recipe, RewardWeights
from learner.batching import MicroBatch, TrainingSequence
from learner.losses import kl_k3, on_answers, truncated_importance
from learner.parity import Parity
from learner.policy import Policy, Rank, ReferenceModel
from learner.rank import LearnerRank
from learner.sequences import PromptCache, micro_batches, rl_sequences
from learner.tree import confidence_tree
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.prompts import Prompt

# Weights leave the learner in buckets of this size: under ZeRO-3 no rank holds more of them at once.
BYTES_PER_BUCKET = 256 * 2**20


@dataclass(frozen=True, slots=True)
class RlReport:
    """What one step did. Means are over the response tokens of the global batch."""

    loss: float
    grad_norm: float | None
    learning_rate: float
    mismatch: float  # mean |log p_learner - log p_engine|, nats: arithmetic and policy lag together
    parity: float | None  # the same over responses sampled under the learner's own weights; None where there are none
    behaviour_kl: float  # k3 estimate of KL(engine || learner), nats a token
    capped_share: float  # share of tokens whose importance ratio was capped
    reference_kl: float | None  # k3 estimate of KL(policy || reference); None without a reference
    exact_share: float | None  # share of stated confidences with the exact gradient; None where it is not asked for
    tokens: int  # put through the model by this rank: prompts once for each row, responses, branches
    seconds: float


@dataclass(slots=True)
class _TokenSums:
    """Sums over this rank's tokens, gathered while the loss is computed."""

    values: dict[str, float] = field(default_factory=dict)
    count: float = 0.0

    def add(self, counted: torch.Tensor, **means: torch.Tensor) -> None:
        self.count += float(counted.sum())
        for name, tokens in means.items():
            self.values[name] = self.values.get(name, 0.0) + float((tokens.detach() * counted).sum())


class RlRank(LearnerRank):
    """Holds a share of the policy and takes the same steps as its peers."""

    def __init__(
        self, rank: Rank, model_dir: str, recipe: Recipe, prompts: Mapping[str, Prompt], limits: ImageLimits
    ) -> None:
        super().__init__(rank, model_dir, limits, recipe.seed)
        self._recipe = recipe
        self._prompts = prompts
        self._cache = PromptCache(self._chat)
        barred = self._chat.barred_token_ids()
        rl = recipe.rl
        self._policy = Policy(
            model_dir,
            recipe.learner,
            rl.optimizer,
            steps=rl.steps,
            barred_token_ids=barred,
            temperature=rl.temperature,
        )
        exact = recipe.rewards.confidence_gradient is ConfidenceGradient.EXACT
        self._tree = confidence_tree(self._chat.tokenizer, recipe.response.confidences) if exact else None
        self._reference: Callable[[MicroBatch], torch.Tensor] | None = None
        if rl.kl_weight > 0 and recipe.learner.lora is not None:
            self._reference = self._policy.logprobs_without_adapters
        elif rl.kl_weight > 0:
            self._reference = ReferenceModel(model_dir, recipe.learner, barred, rl.temperature).logprobs

    def step(self, encoded_groups: Sequence[bytes], weights: RewardWeights, version: int) -> RlReport:
        """One optimizer step on all ranks' groups; every rank passes its own share, which may be empty of scores.

        `version` is the number of steps taken before, the name of the weights that the step changes.
        Raises CodecError for bytes that are no group, ValueError for prompts that are not the recipe's.
        """
        started = time.perf_counter()
        sequences = self._sequences(encoded_groups, weights)
        batches = micro_batches(sequences, self._chat, self._recipe.learner)
        sums, parity = _TokenSums(), Parity(version)
        learning_rate = self._policy.learning_rate
        loss = self._policy.step(batches, parity.watching(lambda logprobs, batch: self._loss(logprobs, batch, sums)))
        means = self._policy.mean_over_ranks(sums.values, sums.count)
        return RlReport(
            loss=loss,
            grad_norm=self._policy.grad_norm(),
            learning_rate=learning_rate,
            mismatch=means["mismatch"],
            parity=parity.mean(self._policy.mean_over_ranks),
            behaviour_kl=means["behaviour_kl"],
            capped_share=means["capped"],
            reference_kl=means.get("reference_kl"),
            exact_share=None if self._tree is None else self._exact_share(sequences),
            tokens=sum(int(batch.attention_mask.sum()) for batch in batches),
            seconds=time.perf_counter() - started,
        )

    def _sequences(self, encoded_groups: Sequence[bytes], weights: RewardWeights) -> list[TrainingSequence]:
        sequences = []
        for group in map(decode_group, encoded_groups):
            if group.prompt_id not in self._prompts:
                raise ValueError(
                    f"group {group.group_id} is of prompt {group.prompt_id!r}, which stage 3 does not have"
                )
            expanded = self._cache.get(self._prompts[group.prompt_id])
            sequences += rl_sequences(group, expanded, weights, self._recipe.rewards, self._tree)
        return sequences

    def _exact_share(self, sequences: Sequence[TrainingSequence]) -> float:
        stated = [s for s in sequences if s.confidence_mask is not None and s.confidence_mask.any()]
        exact = float(sum(s.branches is not None for s in stated))
        return self._policy.mean_over_ranks({"exact": exact}, len(stated))["exact"]

    def _loss(self, found: torch.Tensor, batch: MicroBatch, sums: _TokenSums) -> torch.Tensor:
        rl = self._recipe.rl
        logprobs, edges = found[: len(batch.targets)], found[len(batch.targets) :]
        loss = truncated_importance(logprobs, batch.behaviour_logprobs, batch.advantages, rl.importance_cap)
        difference = logprobs.detach() - batch.behaviour_logprobs
        tokens = {
            "mismatch": difference.abs(),
            "behaviour_kl": kl_k3(batch.behaviour_logprobs, logprobs.detach()),
            "capped": (difference.exp() > rl.importance_cap).float(),
        }
        if self._reference is not None:
            divergence = kl_k3(logprobs, self._reference(batch))
            loss = loss + rl.kl_weight * on_answers(divergence, batch.confidence_mask)
            tokens["reference_kl"] = divergence
        sums.add((batch.weights > 0).float(), **tokens)
        summed = (loss * batch.weights).sum()
        # The expected reward is over the policy's own confidences: nothing sampled that a ratio would have to correct.
        return summed if batch.tree is None else summed - batch.tree.expected(edges)

    def weight_buckets(self) -> Iterator[dict[str, torch.Tensor]]:
        """The weights, bucket by bucket, on rank 0; every rank must exhaust the iterator."""
        return self._policy.weight_buckets(BYTES_PER_BUCKET)
