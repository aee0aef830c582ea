"""One rank of supervised fine-tuning: loss on the response alone, token mean over the global batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import Learner, Sft
from learner.batching import MicroBatch
from learner.losses import negative_log_likelihood
from learner.policy import Policy, Rank
from learner.rank import LearnerRank
from learner.sequences import PromptCache, micro_batches, sft_sequence
from rollout.chat import ImageLimits
from rollout.prompts import Prompt


@dataclass(frozen=True, slots=True)
class SftReport:
    """What one step did."""

    step: int
    loss: float  # mean negative log-likelihood of the response tokens of the global batch, nats
    grad_norm: float | None
    learning_rate: float
    tokens: int  # prompt and response tokens of this rank
    seconds: float


def held_out(rows: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and to evaluate on; at least one of each."""
    order = np.random.default_rng([seed, 0]).permutation(rows).tolist()
    count = min(max(1, round(rows * share)), rows - 1) if share > 0 else 0
    return sorted(order[count:]), sorted(order[:count])


def rows_of_step(step: int, rows: Sequence[int], rows_per_step: int, seed: int) -> list[int]:
    """The rows of a step: a new order each epoch, and a function of the step alone, so a resumed run goes on."""
    positions = np.arange(step * rows_per_step, (step + 1) * rows_per_step)
    orders = {
        int(epoch): np.random.default_rng([seed, 1, int(epoch)]).permutation(len(rows))
        for epoch in np.unique(positions // len(rows))
    }
    return [rows[orders[int(p // len(rows))][p % len(rows)]] for p in positions]


class SftRank(LearnerRank):
    """Holds a share of the model and takes the same steps as its peers."""

    def __init__(
        self,
        rank: Rank,
        model_dir: str,
        stage: Sft,
        learner: Learner,
        prompts: Sequence[Prompt],
        limits: ImageLimits,
        seed: int,
    ) -> None:
        super().__init__(rank, model_dir, limits, seed)
        self._stage = stage
        self._learner = learner
        self._prompts = prompts
        self._seed = seed
        self._cache = PromptCache(self._chat)
        self._policy = Policy(model_dir, learner, stage.optimizer, steps=stage.steps)
        self._train_rows, self._eval_rows = held_out(len(prompts), stage.eval_share, seed)

    def train(self, step: int) -> SftReport:
        """Take step `step`, counted from 0."""
        started = time.perf_counter()
        rows = rows_of_step(step, self._train_rows, self._stage.rows_per_step, self._seed)
        batches = self._batches(rows[self._rank.index :: self._rank.world])
        learning_rate = self._policy.learning_rate
        loss = self._policy.step(batches, lambda logprobs, b: (negative_log_likelihood(logprobs) * b.weights).sum())
        tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
        seconds = time.perf_counter() - started
        return SftReport(step, loss, self._policy.grad_norm(), learning_rate, tokens, seconds)

    def evaluate(self) -> float | None:
        """Mean negative log-likelihood of the held-out responses, nats a token; None where none are held out."""
        if not self._eval_rows:
            return None
        total, tokens = 0.0, 0
        for batch in self._eval_batches():
            total -= float((self._policy.logprobs(batch) * batch.weights).sum())
            tokens += int(batch.weights.sum())
        return self._policy.mean_over_ranks({"loss": total}, tokens)["loss"]

    def _eval_batches(self) -> Iterator[MicroBatch]:
        # All ranks run as many forward passes: ZeRO-3 gathers parameters in each.
        size = self._stage.rows_per_step
        for start in range(0, len(self._eval_rows), size):
            rows = self._eval_rows[start : start + size]
            mine = rows[self._rank.index :: self._rank.world]
            batches = self._batches(mine or rows[:1])
            rounds = self._policy.most_over_ranks(len(batches))
            dummies = [batches[0].as_dummy()] * (rounds - len(batches))
            yield from [*(batches if mine else [batches[0].as_dummy()]), *dummies]

    def _batches(self, rows: Sequence[int]) -> list[MicroBatch]:
        prompts = [self._prompts[row] for row in rows]
        tokenizer, weight = self._chat.tokenizer, self._stage.confidence_token_weight
        sequences = [sft_sequence(prompt, self._cache.get(prompt), tokenizer, weight) for prompt in prompts]
        return micro_batches(sequences, self._chat, self._learner)
