"""`caliber check`: what a recipe comes to, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.fit import Fit, fit, in_words
from cluster.gguf_file import gguf_file
from cluster.matchers import opened
from configs.bundles import Bundle, asked_by, rollout_workers
from configs.derive import Derived, ModelSize, derive, problems
from configs.fields import describe
from configs.schema import ConfidenceGradient, Precision, Recipe, Through
from learner.architecture import size_of, tree_mask_problems
from rewards.safety import safety

_GIB = 2**30


def describe_fields() -> str:
    """Every setting: key, type, default, meaning."""
    return "\n".join(
        f"{found.path}: {found.type}{'' if found.default is None else f' = {found.default}'}\n    {found.help}"
        for found in describe(Recipe)
    )


def describe_recipe(recipe: Recipe) -> str:
    """Derived numbers, the reward mix and whether it is safe, and what cannot work.

    A scorer of the user's is made once, in a process of its own.
    """
    size, unknown = _size(recipe)
    derived = derive(recipe, size)
    return "\n".join(
        [
            *_sizes(recipe, derived),
            _transfer(recipe, derived),
            *_memory(recipe, derived, unknown),
            *_mix(recipe),
            *(f"PROBLEM  {p}" for p in [*problems(recipe), *_model_problems(recipe, size), *_matcher_problems(recipe)]),
        ]
    )


def describe_fit(recipe: Recipe, nodes: Sequence[Bundle]) -> str:
    """Whether a cluster of these nodes has room for stage 3, were nobody else there."""
    found = fit(asked_by(recipe), nodes)
    return "\n".join([f"cluster  {in_words(nodes)}", *(_missing(found) or [*_placed_on(found), *_more(recipe, found)])])


def _missing(found: Fit) -> list[str]:
    return [
        f"PROBLEM  the cluster has no room for {f'{number} of ' if asked.count > 1 else ''}{asked}: "
        f"add nodes, or lower {asked.settings}"
        for asked, number in found.missing
    ]


def _placed_on(found: Fit) -> list[str]:
    told = ", ".join(f"{asked.who} on {len(on)}" for asked, on in found.placed)
    return [f"         has room for stage 3, if other jobs leave it: {told} of its nodes"]


def _more(recipe: Recipe, found: Fit) -> Iterator[str]:
    """Of the rollout workers that may join."""
    if (number := recipe.engine.most_workers - recipe.engine.workers) > 0:
        ((asked, on),) = fit([replace(rollout_workers(recipe.engine), count=number)], found.left).placed
        yield f"         and for {sum(on.values())} of {number} more {asked.who}"


def _sizes(recipe: Recipe, derived: Derived) -> Iterator[str]:
    rl, learner, engine = recipe.rl, recipe.learner, recipe.engine
    exact = recipe.rewards.confidence_gradient is ConfidenceGradient.EXACT
    yield f"recipe {recipe.name}, output {recipe.output}"
    yield (
        f"stage 1  {recipe.stage1.steps} steps of {recipe.stage1.rows_per_step} rows, "
        f"{derived.stage1_rows_per_rank} a rank"
    )
    yield (
        f"stage 2  {recipe.stage2.steps} steps of {recipe.stage2.rows_per_step} rows, "
        f"{derived.stage2_rows_per_rank} a rank, confidences by {recipe.seeding.source}"
    )
    yield (
        f"stage 3  {rl.steps} steps of {rl.prompts_per_step} prompts x {rl.samples_per_prompt} samples = "
        f"{derived.trajectories_per_step} trajectories, at most {derived.tokens_per_step_at_most} tokens"
    )
    yield (
        f"         at most {derived.groups_in_flight_at_most} groups in flight (policy lag {rl.max_policy_lag}), "
        f"{derived.sequences_per_worker_at_most} sequences a worker, {derived.queued_per_worker_at_most} of them queued"
    )
    yield (
        f"learner  {learner.ranks} ranks, ZeRO {learner.zero_stage}, {learner.precision}, "
        f"at most {derived.micro_batches_per_rank_at_most} micro-batches a step and rank"
        f"{', and what the exact gradient adds' if exact else ''}"
    )
    more = f", up to {engine.most_workers}" if engine.most_workers > engine.workers else ""
    yield f"rollout  {engine.workers} workers{more}, {engine.precision}, tensor parallel {engine.tensor_parallel}"
    yield f"Ray      {derived.ray_cpus:g} CPUs and {derived.ray_gpus:g} GPUs for stage 3"
    yield f"cores    rollout workers {_placed(engine.cores)}; learner ranks {_placed(learner.cores)}"


def _placed(cores: Sequence[str] | None) -> str:
    if cores is None:
        return "where the system puts them"
    return f"on {cores[0]}" if len(cores) == 1 else f"in turn on {' and '.join(cores)}"


def _transfer(recipe: Recipe, derived: Derived) -> str:
    what = "whole weights"
    if recipe.adapters_alone is not None:
        what = "adapters alone"
    elif recipe.transfer.deltas:
        what = f"the values that changed, whole weights at least every {recipe.transfer.full_every} updates"
    largest = "" if derived.memory is None else f", up to {derived.memory.update / 1e6:.1f} MB an update"
    way = "from GPU to GPU" if recipe.transfer.through is Through.NCCL else "through Ray's object store"
    return f"transfer {what}{largest}, {way}"


def _size(recipe: Recipe) -> tuple[ModelSize | None, str]:
    """That of a model that is there already; None and the reason where it cannot be looked at from here."""
    model, lora = recipe.model, recipe.learner.lora
    if model.scratch is not None:
        return None, ""  # follows from the recipe
    try:
        if model.gguf is not None:
            return size_of(gguf_file(model.gguf), lora), ""
        assert model.path is not None
        if not Path(model.path).is_dir():
            return None, f"model.path: {model.path} is no folder on this machine"
        return size_of(Path(model.path), lora), ""
    except (OSError, ValueError) as error:
        return None, f"{error}".partition("\n")[0]


def _memory(recipe: Recipe, derived: Derived, unknown: str) -> Iterator[str]:
    if derived.memory is None or derived.size is None:
        yield f"memory   not estimated: {unknown}"
        return
    memory = derived.memory
    cache = "what is left" if memory.engine_kv_cache is None else f"{memory.engine_kv_cache / _GIB:.2f} GiB"
    trained = f", {derived.size.trained / 1e6:.1f}M of adapters trained" if recipe.learner.lora else ""
    yield (
        f"memory   {derived.size.parameters / 1e6:.1f}M parameters{trained}: {memory.rank / _GIB:.2f} GiB a rank, "
        f"activations apart, {memory.engine_weights / _GIB:.2f} GiB of weights and {cache} of keys and values an engine"
    )
    if memory.transfer_copy:
        yield (
            f"         for deltas {memory.transfer_copy / _GIB:.2f} GiB on rank 0's host, as much on each rollout "
            "worker's, up to twice as much in the object store"
        )
        if recipe.learner.precision is Precision.FP32:
            yield "         in fp32 a step changes nearly every value: deltas will save little or nothing"


def _mix(recipe: Recipe) -> Iterator[str]:
    rewards = recipe.rewards
    weights = ", ".join(f"{weight:g} x {name}" for name, weight in rewards.weights.model_dump().items())
    against = f"answers against the {rewards.reference} ({rewards.correctness})"
    yield (
        f"rewards  {weights}; {rewards.scoring_rule} score, credit {rewards.credit}, {against}, "
        f"{rewards.confidence_gradient} confidence gradient"
    )
    findings = safety(rewards)
    yield from (f"         {finding.severity}: {finding.message}" for finding in findings)
    if not findings:
        yield "         safe: no response gains by being wrong on purpose, none by being malformed"


def _model_problems(recipe: Recipe, size: ModelSize | None) -> list[str]:
    """Of a model that could be looked at."""
    if size is None:
        return []
    model = recipe.model
    return tree_mask_problems(gguf_file(model.gguf) if model.gguf is not None else str(model.path), recipe)


def _matcher_problems(recipe: Recipe) -> Iterator[str]:
    try:
        with opened(recipe.rewards, recipe.reward_service):
            return
    except ValueError as error:
        yield str(error)
