"""What follows from a recipe: the numbers behind its numbers, and the combinations that cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from urllib.parse import urlsplit

from configs.bundles import asked_by
from configs.memory import Memory, ModelSize, estimate_memory, kv_bytes_per_token, parameter_count
from configs.placement import core_problems
from configs.reward_settings import LONGEST_PAUSE
from configs.schema import (
    ConfidenceGradient,
    ConfidenceScale,
    Correctness,
    Credit,
    Precision,
    Proximal,
    Reading,
    Recipe,
    Reference,
    ScoringRule,
    ScratchModel,
    SeedSource,
    Through,
)

LARGEST_ADAPTER_RANK = 512  # of vLLM's engines

__all__ = [
    "Derived",
    "Memory",
    "ModelSize",
    "derive",
    "parameter_count",
    "problems",
    "reward_problems",
    "service_problems",
]


@dataclass(frozen=True, slots=True)
class Derived:
    """Numbers of a run. Those that end in `_at_most` are upper bounds."""

    trajectories_per_step: int
    tokens_per_step_at_most: int  # prompt and response tokens that a step trains on
    micro_batches_per_rank_at_most: int  # a learner rank's in a step of stage 3, without the exact gradient's branches
    groups_in_flight_at_most: int  # admitted and not yet trained on
    sequences_per_worker_at_most: int  # in flight at one rollout worker, evenly spread
    queued_per_worker_at_most: int  # of these, the ones beyond engine.sequences_at_once
    stage1_rows_per_rank: int  # in one step, of the rank with the most
    stage2_rows_per_rank: int
    ray_cpus: float  # all actors of stage 3
    ray_gpus: float
    size: ModelSize | None  # None: not known from the recipe alone
    memory: Memory | None  # None: without the number of parameters there is no estimate


def derive(recipe: Recipe, size: ModelSize | None = None) -> Derived:
    """The numbers of a recipe; a model that is there already needs its parameters counted by the caller."""
    rl, learner, engine = recipe.rl, recipe.learner, recipe.engine
    if size is None and recipe.model.scratch is not None:
        size = _whole(recipe.model.scratch)
    trajectories = rl.prompts_per_step * rl.samples_per_prompt
    groups_in_flight = (rl.max_policy_lag + 1) * rl.prompts_per_step
    limit = rl.groups_per_worker if isinstance(rl.groups_per_worker, int) else groups_in_flight
    sequences = min(ceil(groups_in_flight / engine.workers), limit) * rl.samples_per_prompt
    return Derived(
        trajectories_per_step=trajectories,
        tokens_per_step_at_most=trajectories * engine.tokens_per_sequence,
        micro_batches_per_rank_at_most=_micro_batches_per_rank(recipe),
        groups_in_flight_at_most=groups_in_flight,
        sequences_per_worker_at_most=sequences,
        queued_per_worker_at_most=max(0, sequences - engine.sequences_at_once),
        stage1_rows_per_rank=ceil(recipe.stage1.rows_per_step / learner.ranks),
        stage2_rows_per_rank=ceil(recipe.stage2.rows_per_step / learner.ranks),
        ray_cpus=sum(asked.count * asked.bundle.cpus for asked in asked_by(recipe)),
        ray_gpus=sum(asked.count * asked.bundle.gpus for asked in asked_by(recipe)),
        size=size,
        memory=None if size is None else estimate_memory(recipe, size),
    )


def problems(recipe: Recipe) -> list[str]:
    """Combinations of valid settings that cannot work, each with the key to change and the remedy."""
    checks = (
        _batch_problems,
        _correction_problems,
        _last_layer_problems,
        _length_problems,
        _device_problems,
        _adapter_problems,
        _nccl_problems,
        core_problems,
        reward_problems,
        service_problems,
        _data_problems,
    )
    found = [problem for check in checks for problem in check(recipe)]
    if recipe.model.scratch is not None:
        found += _width_problems(recipe.model.scratch)
        found += _cache_problems(recipe, recipe.model.scratch)
    return found


def _whole(scratch: ScratchModel) -> ModelSize:
    parameters = parameter_count(scratch)
    return ModelSize(parameters, parameters)


def _micro_batches_per_rank(recipe: Recipe) -> int:
    """Every micro-batch but a minibatch's last is full: it holds as many rows of the longest sequences as fit."""
    minibatches = recipe.rl.minibatches
    groups = ceil(recipe.rl.prompts_per_step / minibatches / recipe.learner.ranks)
    samples, limit = recipe.rl.samples_per_prompt, recipe.learner.tokens_per_micro_batch
    fitting = max(1, limit // recipe.engine.tokens_per_sequence)
    in_row = min(samples, fitting) if recipe.learner.share_prompts else 1
    return minibatches * ceil(groups * ceil(samples / in_row) / (fitting // in_row))


def _batch_problems(recipe: Recipe) -> Iterator[str]:
    amounts = {
        "stage1.rows_per_step": recipe.stage1.rows_per_step,
        "stage2.rows_per_step": recipe.stage2.rows_per_step,
        "rl.prompts_per_step": recipe.rl.prompts_per_step,
    }
    ranks = recipe.learner.ranks
    for key, amount in amounts.items():
        if amount < ranks:
            yield f"{key}: {amount} leaves some of {ranks} ranks idle; raise it or lower learner.ranks"


def _correction_problems(recipe: Recipe) -> Iterator[str]:
    rl, ranks = recipe.rl, recipe.learner.ranks
    groups, left = divmod(rl.prompts_per_step, rl.minibatches)
    if left:
        yield (
            f"rl.minibatches: {rl.minibatches} do not divide rl.prompts_per_step ({rl.prompts_per_step}), and each has "
            "as many groups; change one of them"
        )
    elif rl.minibatches > 1 and groups < ranks:
        yield (
            f"rl.minibatches: {rl.minibatches} of {groups} groups each leave some of {ranks} ranks idle; lower it, or "
            "raise rl.prompts_per_step"
        )
    if rl.proximal is Proximal.RECOMPUTED and rl.minibatches == 1:
        yield (
            "rl.proximal: recomputed, it is the current policy in the only optimizer step of a batch, and nothing is "
            "ever clipped; raise rl.minibatches, or set it to interpolated"
        )
    if rl.proximal is Proximal.INTERPOLATED and rl.max_policy_lag == 0:
        yield (
            "rl.proximal: interpolated, it is the current policy where there is no policy lag, and nothing is ever "
            "clipped; raise rl.max_policy_lag, or set it to recomputed"
        )


def _length_problems(recipe: Recipe) -> Iterator[str]:
    engine = recipe.engine
    lengths = {
        "rl.response_tokens": recipe.rl.response_tokens,
        "evaluation.response_tokens": recipe.evaluation.response_tokens,
    }
    for key, length in lengths.items():
        if length >= engine.tokens_per_sequence:
            limit = f"engine.tokens_per_sequence ({engine.tokens_per_sequence})"
            yield f"{key}: {length} leaves no room for a prompt within {limit}; lower it or raise the limit"
    if engine.tokens_per_batch < engine.sequences_at_once:  # vLLM, SchedulerConfig.verify_max_model_len
        yield (
            f"engine.tokens_per_batch: {engine.tokens_per_batch} is less than a token for each of "
            f"engine.sequences_at_once ({engine.sequences_at_once}); raise it or lower those"
        )


def _device_problems(recipe: Recipe) -> Iterator[str]:
    learner, engine = recipe.learner, recipe.engine
    if learner.gpus_per_rank > 1:
        yield f"learner.gpus_per_rank: got {learner.gpus_per_rank:g}, a rank uses one; raise learner.ranks"
    if engine.tensor_parallel > 1 and engine.gpus_per_worker != engine.tensor_parallel:
        yield (
            f"engine.gpus_per_worker: got {engine.gpus_per_worker:g} for engine.tensor_parallel "
            f"{engine.tensor_parallel}; give a worker as many GPUs as its weights are split over"
        )
    if engine.tensor_parallel == 1 and engine.gpus_per_worker > 1:
        yield (
            f"engine.gpus_per_worker: got {engine.gpus_per_worker:g}, and an engine uses one; "
            "raise engine.tensor_parallel to split its weights, or engine.workers"
        )
    if engine.most_workers < engine.workers:
        yield (
            f"engine.workers_at_most: got {engine.most_workers}, fewer than the {engine.workers} that a run needs "
            "(engine.workers); raise it, lower those, or set it to null"
        )


def _adapter_problems(recipe: Recipe) -> Iterator[str]:
    lora, transfer = recipe.learner.lora, recipe.transfer
    if lora is not None and recipe.model.scratch is not None:
        yield (
            "learner.lora: adapters leave the random weights of model.scratch as they are; set lora to null, or start "
            "from model.path or model.gguf"
        )
    if transfer.adapters:
        yield from _alone_problems(recipe)


def _alone_problems(recipe: Recipe) -> Iterator[str]:
    lora, engine, transfer = recipe.learner.lora, recipe.engine, recipe.transfer
    if lora is None:
        yield "transfer.adapters: there are none without learner.lora; set it, or adapters to false"
    elif lora.rank > LARGEST_ADAPTER_RANK:
        yield (
            f"transfer.adapters: vLLM takes ranks up to {LARGEST_ADAPTER_RANK}, and learner.lora.rank is {lora.rank}; "
            "lower it, or set adapters to false to send them merged"
        )
    if transfer.deltas:
        yield (
            "transfer.deltas: with transfer.adapters little is sent, and at an adapter's learning rate nearly every "
            "value of it changes in a step; set one of the two to false"
        )
    if engine.gpus_per_worker > 0 and engine.precision is Precision.FP32:
        yield (
            "transfer.adapters: vLLM's kernels for adapters on GPUs take no fp32; set engine.precision to bf16, or "
            "adapters to false to send them merged"
        )


def _nccl_problems(recipe: Recipe) -> Iterator[str]:
    transfer, learner, engine = recipe.transfer, recipe.learner, recipe.engine
    if transfer.through is not Through.NCCL:
        return
    for key, gpus in (
        ("learner.gpus_per_rank", learner.gpus_per_rank),
        ("engine.gpus_per_worker", engine.gpus_per_worker),
    ):
        if gpus < 1:  # part of one: it may be the same GPU at both ends, which NCCL refuses
            yield f"transfer.through: nccl goes from GPU to GPU, and {key} is {gpus:g}; raise it, or set object_store"
    for key, asked in (("deltas", transfer.deltas), ("adapters", transfer.adapters)):
        if asked:
            yield f"transfer.{key}: they go through the object store, and transfer.through is nccl; change one of them"


def _last_layer_problems(recipe: Recipe) -> Iterator[str]:
    if recipe.learner.fp32_head is not recipe.engine.fp32_head:
        yield (
            "learner.fp32_head and engine.fp32_head differ, and with them the log-probabilities of learner and engine, "
            "by what logits lose in bf16; set both or neither"
        )


def reward_problems(recipe: Recipe) -> Iterator[str]:
    """Those of `problems` that are about what is rewarded."""
    rewards = recipe.rewards
    exact, strict = rewards.confidence_gradient is ConfidenceGradient.EXACT, rewards.reading is Reading.STRICT
    attention, masked = recipe.learner.attention, ("sdpa", "eager")
    if exact and attention not in masked:
        yield (
            f"learner.attention: {attention} takes no tree mask, which rewards.confidence_gradient "
            "exact needs; set it to sdpa or eager, or the gradient to sampled"
        )
    if recipe.learner.share_prompts and attention not in masked:
        yield (
            f"learner.attention: {attention} takes no tree mask, which learner.share_prompts needs; set it to sdpa "
            "or eager, or share_prompts to false"
        )
    if exact and not strict:
        yield (
            "rewards.confidence_gradient: exact goes over the strict reading's grid, and rewards.reading is "
            f"{rewards.reading}; set the gradient to sampled, or the reading to strict"
        )
    if strict and rewards.scoring_rule is ScoringRule.UNCLIPPED_LOG:
        yield (
            "rewards.scoring_rule: unclipped_log is infinite at 0 and 1, which the strict reading takes; set it to log"
        )
    if not strict and recipe.response.confidence_scale is not ConfidenceScale.DECIMAL:
        yield (
            f"response.confidence_scale: {recipe.response.confidence_scale} is none that rewards.reading "
            f"{rewards.reading} reads; set it to decimal, or the reading to strict"
        )
    if not strict and (rewards.reference is Reference.SHARES or rewards.target.annotators):
        yield (
            f"rewards.reading: {rewards.reading} holds answers against one label and knows no shares; set "
            "rewards.reference to label or annotator and rewards.target to its outcome, or the reading to strict"
        )
    if not strict and rewards.correctness != Correctness.EXACT:
        yield (
            f"rewards.correctness: {rewards.correctness} is never asked, since rewards.reading {rewards.reading} says "
            "itself what is right; set it to exact, or the reading to strict"
        )
    if rewards.divide_by_std and exact:
        yield (
            "rewards.divide_by_std: the exact gradient is over all confidences and not over a group's, so there is no "
            "deviation to divide it by; set it to false, or rewards.confidence_gradient to sampled"
        )
    if rewards.divide_by_std and rewards.credit is Credit.APART:
        yield (
            "rewards.divide_by_std: what is divided is the whole reward, and credit is apart; set it to false, or "
            "rewards.credit to joint"
        )


def service_problems(recipe: Recipe, questions: int = 1) -> Iterator[str]:
    """Where all that a response may take is more than a group may, the worker is replaced for what it is allowed.

    `questions` are asked of each answer: as many as there are references, which the data alone say.
    """
    rewards, service, samples = recipe.rewards, recipe.reward_service, recipe.rl.samples_per_prompt
    limit = f"reward_service.seconds_per_group: {service.seconds_per_group:g}"
    responses = f"{samples} responses" + (f" held against {questions} references each" if questions > 1 else "")
    needed = samples * questions * service.seconds_per_response
    if rewards.own_scorer and needed > service.seconds_per_group:
        yield (
            f"{limit} is less than the {needed:g} that {responses} may take, one after the other, of "
            f"reward_service.seconds_per_response ({service.seconds_per_response:g}) each; raise it or lower that"
        )
    if rewards.judge is None:
        return
    needed = ceil(samples / rewards.judge.requests_at_once) * questions * rewards.judge.seconds_at_most
    if needed > service.seconds_per_group:
        yield (
            f"{limit} is less than the {needed:g} that a judge may take for {responses}, "
            f"{rewards.judge.requests_at_once} at once, by rewards.judge.attempts and seconds_per_request, pauses of "
            f"{LONGEST_PAUSE:g} s between them; raise it or lower those"
        )


def _data_problems(recipe: Recipe) -> Iterator[str]:
    seeding, model, evaluation = recipe.seeding, recipe.model, recipe.evaluation
    if seeding.source is not SeedSource.ANNOTATORS and seeding.rows_per_prompt > seeding.samples_per_prompt:
        yield (
            f"seeding.rows_per_prompt: {seeding.rows_per_prompt} rows cannot be picked from "
            f"seeding.samples_per_prompt ({seeding.samples_per_prompt}); lower it or raise those"
        )
    if evaluation.temperature == 0 and evaluation.samples_per_prompt > 1:
        yield (
            f"evaluation.samples_per_prompt: {evaluation.samples_per_prompt} greedy samples are all alike; "
            "set it to 1, or evaluation.temperature above 0"
        )
    if recipe.mirror.address is not None and urlsplit(recipe.mirror.address).password is not None:
        yield (
            "mirror.address: it holds a password, and recipes are kept with the run; take it out, and give it to the "
            "storage's library by the environment or a file of its own"
        )
    lowest, highest = model.min_image_pixels, model.max_image_pixels
    if lowest is not None and highest is not None and lowest > highest:
        yield f"model.min_image_pixels: {lowest} is more than model.max_image_pixels ({highest}); swap them"


def _width_problems(scratch: ScratchModel) -> Iterator[str]:
    # Rotary embedding turns pairs of numbers, in the vision tower half of them by row and half by column.
    yield from _head_problems("width", scratch.width, "heads", scratch.heads, multiple=2)
    yield from _head_problems("vision_width", scratch.vision_width, "vision_heads", scratch.vision_heads, multiple=4)
    if scratch.heads % scratch.key_value_heads:
        yield (
            f"model.scratch.key_value_heads: {scratch.key_value_heads} does not divide "
            f"model.scratch.heads ({scratch.heads}); take a divisor"
        )


def _head_problems(width_key: str, width: int, heads_key: str, heads: int, multiple: int) -> Iterator[str]:
    if width % (heads * multiple):
        yield (
            f"model.scratch.{width_key}: {width} is not {heads} heads of a size that {multiple} divides; "
            f"take a multiple of {heads * multiple}, or change model.scratch.{heads_key}"
        )


def _cache_problems(recipe: Recipe, scratch: ScratchModel) -> Iterator[str]:
    memory = estimate_memory(recipe, _whole(scratch))
    needed = recipe.engine.tokens_per_sequence * kv_bytes_per_token(scratch, recipe.engine)
    if memory.engine_kv_cache is not None and needed > memory.engine_kv_cache:
        yield (
            f"engine.kv_cache_gib: {recipe.engine.kv_cache_gib:g} does not hold one sequence of "
            f"{recipe.engine.tokens_per_sequence} tokens ({needed:,} bytes); "
            "raise it or lower engine.tokens_per_sequence"
        )
