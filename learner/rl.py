"""One rank of reinforcement learning: groups in, a step of one optimizer step or more, weights out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from configs.schema import ConfidenceGradient, Proximal, Recipe, RewardWeights
from learner.batching import MicroBatch, TrainingSequence
from learner.corrections import corrected_losses
from learner.kl import KL_LOSSES, on_answers
from learner.meters import TokenMeters, TokenSums, token_values
from learner.normalisation import normalised
from learner.parity import Parity
from learner.policy import Policy, Rank, ReferenceModel
from learner.rank import LearnerRank
from learner.sequences import PromptCache, micro_batches, rl_sequences
from learner.tree import confidence_tree
from rollout.chat import ImageLimits
from rollout.codec import decode_group
from rollout.probe import Probe, probe_of
from rollout.prompts import Prompt

# A bucket ends with the parameter that fills it: under ZeRO-3 a rank holds no more of the weights at once than this and
# one parameter, beside its own share.
BYTES_PER_BUCKET = 256 * 2**20


@dataclass(frozen=True, slots=True)
class RlReport:
    """What one step did, over all of its optimizer steps and ranks where nothing else is said."""

    loss: float  # mean over the optimizer steps
    grad_norm: float | None  # the largest of the optimizer steps'
    learning_rate: float  # of the first optimizer step
    response: TokenMeters | None  # of all response tokens; None where none was trained on
    confidence: TokenMeters | None  # of the confidence tokens alone
    parity: float | None  # the mismatch of responses sampled under the learner's own weights; None without any
    exact_share: float | None  # share of stated confidences with the exact gradient; None where it is not asked for
    tokens: int  # put through the model by this rank: prompts once for each row, responses, branches
    seconds: float  # on this rank
    probe: Probe | None = None  # what this rank would have as the run's, where none was given
    probe_logprobs: NDArray[np.float32] | None = None  # [T] of the given one, plain, under the weights before the step

    def metrics(self) -> dict[str, float | None]:
        """What the log says of the step by itself, but for tokens and seconds, which are the rank's."""
        names = [f.name for f in fields(TokenMeters)]
        return {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            **{name: getattr(self.response, name, None) for name in names},
            **{f"confidence_tokens/{name}": getattr(self.confidence, name, None) for name in names},
            "parity": self.parity,
            "exact_share": self.exact_share,
        }


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
            steps=rl.steps * rl.minibatches,
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

    def step(
        self,
        minibatches: Sequence[Sequence[bytes]],
        weights: RewardWeights,
        version: int,
        probe: Probe | None = None,
    ) -> RlReport:
        """One optimizer step for each minibatch, from weight version `version` to the next.

        Every rank passes its own share of the groups: as many minibatches as its peers, none without a group, which
        may be without scores. All pass the same probe.
        Raises CodecError for bytes that are no group, ValueError for prompts that are not the recipe's.
        """
        started = time.perf_counter()
        probed = None if probe is None else self._probed(probe)
        sequences = [self._sequences(groups, weights) for groups in minibatches]
        batches = [micro_batches(own, self._chat, self._recipe.learner) for own in sequences]
        if self._recipe.rl.proximal is Proximal.RECOMPUTED:
            # The first minibatch is trained under the batch's first weights: its proximal policy is the current one.
            batches[1:] = [self._with_proximal(own) for own in batches[1:]]
        response, confidence = TokenSums(), TokenSums()
        learning_rate, losses, norms = self._policy.learning_rate, [], []

        def loss(found: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
            return self._loss(found, batch, version, response, confidence)

        parity = Parity(version)
        for number, own in enumerate(batches):  # after the first the weights are no version's
            losses.append(self._policy.step(own, parity.watching(loss) if number == 0 else loss))
            norms.append(self._policy.grad_norm())
        return RlReport(
            loss=sum(losses) / len(losses),
            grad_norm=max((norm for norm in norms if norm is not None), default=None),
            learning_rate=learning_rate,
            response=response.meters(self._policy.mean_over_ranks),
            confidence=confidence.meters(self._policy.mean_over_ranks),
            parity=parity.mean(self._policy.mean_over_ranks),
            exact_share=None if self._tree is None else self._exact_share([*chain(*sequences)]),
            tokens=sum(int(batch.attention_mask.sum()) for batch in chain(*batches)),
            seconds=time.perf_counter() - started,
            probe=self._probe(minibatches[0][0]) if probe is None else None,
            probe_logprobs=probed,
        )

    def _probe(self, encoded_group: bytes) -> Probe | None:
        group = decode_group(encoded_group)
        return probe_of(group, self._prompts[group.prompt_id], self._recipe.rl.response_tokens)

    def _probed(self, probe: Probe) -> NDArray[np.float32]:
        weights = np.ones(len(probe.tokens), np.float32)
        sequence = TrainingSequence(self._cache.get(probe.prompt), probe.tokens, weights)
        (batch,) = micro_batches([sequence], self._chat, self._recipe.learner)
        found: NDArray[np.float32] = self._policy.plain_logprobs(batch).numpy()
        return found

    def _with_proximal(self, batches: Sequence[MicroBatch]) -> list[MicroBatch]:
        found = self._policy.response_logprobs(batches)
        return [replace(batch, proximal_logprobs=own) for batch, own in zip(batches, found, strict=True)]

    def _sequences(self, encoded_groups: Sequence[bytes], weights: RewardWeights) -> list[TrainingSequence]:
        rl = self._recipe.rl
        sequences = []
        for group in map(decode_group, encoded_groups):
            if group.prompt_id not in self._prompts:
                raise ValueError(
                    f"group {group.group_id} is of prompt {group.prompt_id!r}, which stage 3 does not have"
                )
            expanded = self._cache.get(self._prompts[group.prompt_id])
            sequences += rl_sequences(group, expanded, weights, self._recipe.rewards, self._tree)
        return normalised(sequences, rl.loss_mean, rl.response_tokens)

    def _exact_share(self, sequences: Sequence[TrainingSequence]) -> float:
        stated = [s for s in sequences if s.confidence_mask is not None and s.confidence_mask.any()]
        exact = float(sum(s.branches is not None and s.branches.off_tree is None for s in stated))
        return self._policy.mean_over_ranks({"exact": exact}, len(stated))["exact"]

    def _loss(
        self, found: torch.Tensor, batch: MicroBatch, version: int, response: TokenSums, confidence: TokenSums
    ) -> torch.Tensor:
        rl = self._recipe.rl
        logprobs, edges = found[: len(batch.targets)], found[len(batch.targets) :]
        corrected = corrected_losses(logprobs, batch, rl, version)
        reference = None if self._reference is None else self._reference(batch)
        loss = corrected.losses
        if reference is not None:
            divergence = KL_LOSSES[rl.kl_estimator](logprobs, reference)
            loss = loss + rl.kl_weight * on_answers(divergence, batch.confidence_mask)
        values, trained = token_values(logprobs, batch, corrected, reference), batch.weights > 0
        response.add(trained, values)
        confidence.add(trained & batch.confidence_mask, values)
        summed = (loss * batch.weights).sum()
        # The expected reward is over the policy's own confidences: nothing sampled that a ratio would have to correct.
        return summed if batch.tree is None else summed - batch.tree.expected(edges)

    def weight_buckets(self) -> Iterator[dict[str, torch.Tensor]]:
        """What engines get, bucket by bucket, on rank 0: the weights, or their adapters alone.

        Every rank must exhaust the iterator.
        """
        if self._recipe.adapters_alone is not None:
            return self._policy.adapter_buckets(BYTES_PER_BUCKET)
        return self._policy.weight_buckets(BYTES_PER_BUCKET)
