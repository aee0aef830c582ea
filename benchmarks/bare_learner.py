"""DeepSpeed alone: a plain policy gradient on a run's own batches, without Ray, weights to send, or a log."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import deepspeed
import torch

from benchmarks.step_times import Trained
from cluster.quiet import quiet
from configs.schema import Recipe
from learner.batching import MicroBatch
from learner.policy import Rank, ResponseLogprobs, join, load_model
from learner.sequences import micro_batches, rl_sequences
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Prompt
from rollout.rollout_file import read_rollouts

_SECONDS_TO_JOIN = 60.0


def train(
    model_dir: str, recipe: Recipe, prompts: Sequence[Prompt], rollouts: Path, warm_up: int, steps: int
) -> Trained:
    """Optimizer steps on the groups of a run, which is over, in the order of their ids. The prompts are the run's.

    All micro-batches are made before. One rank, in a process of its own.
    """
    quiet()
    torch.set_num_threads(recipe.learner.threads_per_rank or 1)
    join_alone()
    chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
    batches = [own for _, own in zip(range(warm_up + steps), _batches(chat, recipe, prompts, rollouts), strict=False)]
    if len(batches) < warm_up + steps:
        raise ValueError(f"{rollouts} has groups for {len(batches)} steps, expected {warm_up + steps}")
    engine = _engine(model_dir, recipe, chat)
    for own in batches[:warm_up]:
        _step(engine, own)
    begun = time.perf_counter()
    for own in batches[warm_up:]:
        _step(engine, own)
    seconds = time.perf_counter() - begun
    tokens = sum(int(batch.attention_mask.sum()) for own in batches[warm_up:] for batch in own)
    return Trained(seconds / steps, tokens / seconds)


def _batches(chat: ChatFormat, recipe: Recipe, prompts: Sequence[Prompt], rollouts: Path) -> Iterator[list[MicroBatch]]:
    """The micro-batches of each step."""
    found = {group.group_id: group for file in rollouts.glob("*.rollouts") for group in read_rollouts(file)}
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    groups, size = [found[number] for number in sorted(found)], recipe.rl.prompts_per_step
    for first in range(0, len(groups) - size + 1, size):
        sequences = [
            sequence
            for group in groups[first : first + size]
            for sequence in rl_sequences(
                group, chat.expand(by_id[group.prompt_id]), recipe.rewards.weights, recipe.rewards
            )
        ]
        yield micro_batches(sequences, chat, recipe.learner)


def _engine(model_dir: str, recipe: Recipe, chat: ChatFormat) -> deepspeed.DeepSpeedEngine:
    model = load_model(model_dir, recipe.learner)
    model.train()
    optimizer = recipe.rl.optimizer
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.max_grad_norm,
        "zero_optimization": {"stage": recipe.learner.zero_stage},
        "bf16": {"enabled": model.dtype is torch.bfloat16},
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(
        model=ResponseLogprobs(model, chat.barred_token_ids(), recipe.rl.temperature),
        optimizer=torch.optim.AdamW(model.parameters(), lr=optimizer.learning_rate, betas=optimizer.betas, fused=True),
        config=config,
    )
    return engine


def _step(engine: deepspeed.DeepSpeedEngine, batches: list[MicroBatch]) -> None:
    divisor = sum(batch.divisor for batch in batches)
    for number, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        engine.backward(-(engine(batch) * batch.advantages * batch.weights).sum() / divisor)
    engine.step()


def join_alone() -> None:
    """Be the one rank of a learner."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    join(Rank(0, 1, address, _SECONDS_TO_JOIN))
