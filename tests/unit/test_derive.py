"""Numbers that follow from a recipe, by hand, and the combinations that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from configs.derive import derive, parameter_count, problems
from configs.load import load_recipe
from configs.memory import GIB, Memory, ModelSize, kv_bytes_per_token
from configs.schema import Engine, Precision, Recipe, ScratchModel

RECIPE = """\
name: test
output: out
data: {root: data}
model: {path: a-model}
stage1: {steps: 1, rows_per_step: 10, optimizer: {learning_rate: 1}}
stage2: {steps: 1, rows_per_step: 9, optimizer: {learning_rate: 1}}
rl: {steps: 1, prompts_per_step: 10, samples_per_prompt: 4, max_policy_lag: 2, optimizer: {learning_rate: 1}}
learner: {ranks: 3, tokens_per_micro_batch: 2500, cpus_per_rank: 2, gpus_per_rank: 1}
engine: {workers: 4, tokens_per_sequence: 1000, sequences_at_once: 20, gpus_per_worker: 0.5}
reward_service: {workers: 2, cpus_per_worker: 0.25}
"""


def recipe_with(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return load_recipe(path, overrides)


def test_the_numbers_of_a_step_follow_from_prompts_and_samples(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path))

    assert derived.trajectories_per_step == 40
    assert derived.tokens_per_step_at_most == 40_000
    assert (derived.stage1_rows_per_rank, derived.stage2_rows_per_rank) == (4, 3)


def test_micro_batches_are_counted_for_the_rank_with_the_most(tmp_path: Path) -> None:
    # 4 of 10 groups are 16 sequences, two of 1000 tokens fit into 2500
    assert derive(recipe_with(tmp_path)).micro_batches_per_rank_at_most == 8


def test_a_group_in_one_row_takes_part_of_a_micro_batch_that_other_groups_cannot_fill(tmp_path: Path) -> None:
    # three of 1000 tokens fit, and a row of at most three leaves the fourth of each of 4 groups a row of its own
    shared, apart = (
        derive(recipe_with(tmp_path, "learner.tokens_per_micro_batch=3500", f"learner.share_prompts={share}"))
        for share in ("true", "false")
    )

    assert (shared.micro_batches_per_rank_at_most, apart.micro_batches_per_rank_at_most) == (8, 6)


def test_each_minibatch_has_micro_batches_of_its_own(tmp_path: Path) -> None:
    # 1 of 2 groups are 4 sequences, two of 1000 tokens fit into 2500; five times
    assert derive(recipe_with(tmp_path, "rl.minibatches=5")).micro_batches_per_rank_at_most == 10


def test_a_sequence_longer_than_a_micro_batch_goes_alone(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "learner.tokens_per_micro_batch=10")

    assert derive(recipe).micro_batches_per_rank_at_most == 16


def test_what_is_in_flight_follows_from_the_policy_lag(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path))

    assert derived.groups_in_flight_at_most == 30
    assert derived.sequences_per_worker_at_most == 32  # 8 groups at the workers that have most, of 4 samples each
    assert derived.queued_per_worker_at_most == 12


def test_nothing_queues_at_an_engine_that_is_large_enough(tmp_path: Path) -> None:
    assert derive(recipe_with(tmp_path, "engine.sequences_at_once=64")).queued_per_worker_at_most == 0


def test_a_limit_of_groups_for_each_worker_bounds_its_sequences(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path, "rl.groups_per_worker=2"))

    assert derived.sequences_per_worker_at_most == 8
    assert derived.queued_per_worker_at_most == 0


def test_an_adaptive_limit_may_come_to_all_that_are_admitted(tmp_path: Path) -> None:
    assert derive(recipe_with(tmp_path, "rl.groups_per_worker=adaptive")).sequences_per_worker_at_most == 32


def test_ray_is_asked_for_the_sum_of_all_actors(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path))

    assert derived.ray_cpus == 3 * 2 + 4 * 1 + 2 * 0.25
    assert derived.ray_gpus == 3 * 1 + 4 * 0.5


def test_without_a_parameter_count_there_is_no_memory_estimate(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path))

    assert (derived.size, derived.memory) == (None, None)


@pytest.mark.parametrize(
    ("zero_stage", "precision", "weights", "gradients", "optimizer"),
    [
        (0, "bf16", 6000, 6000, 36000),
        (1, "bf16", 6000, 6000, 12000),
        (2, "bf16", 6000, 4000, 12000),  # gradients in fp32
        (3, "bf16", 2000, 4000, 12000),
        (0, "fp32", 12000, 12000, 24000),  # the weights are their own master copy
        (3, "fp32", 4000, 4000, 12000),
    ],
)
def test_a_rank_s_memory_is_zero_s(
    tmp_path: Path, zero_stage: int, precision: str, weights: int, gradients: int, optimizer: int
) -> None:
    recipe = recipe_with(tmp_path, f"learner.zero_stage={zero_stage}", f"learner.precision={precision}")

    memory = derive(recipe, ModelSize(3000, 3000)).memory

    assert memory is not None
    assert (memory.rank_weights, memory.rank_gradients, memory.rank_optimizer) == (
        weights,
        gradients,
        optimizer,
    )
    assert memory.rank == weights + gradients + optimizer


def test_a_kl_term_costs_a_second_model(tmp_path: Path) -> None:
    memory = derive(recipe_with(tmp_path, "rl.kl_weight=0.1", "learner.zero_stage=3"), ModelSize(3000, 3000)).memory

    assert memory is not None
    assert memory.rank_reference == 6000
    assert memory.rank == 2000 + 4000 + 12000 + 6000


def test_a_model_without_its_adapters_is_its_own_reference(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "rl.kl_weight=0.1", "learner.zero_stage=3", "learner.lora={rank: 8}")

    memory = derive(recipe, ModelSize(3000, trained=300)).memory

    assert memory is not None
    assert memory.rank_reference == 0
    assert memory.rank == 2 * 1100 + 4 * 100 + 12 * 100  # of three ranks


def test_adapters_that_travel_alone_stand_beside_an_engines_weights(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "learner.lora={rank: 8}", "transfer.adapters=true")
    merged = recipe_with(tmp_path, "learner.lora={rank: 8}")

    alone, whole = (derive(r, ModelSize(3000, trained=300)).memory for r in (recipe, merged))

    assert alone is not None and whole is not None
    assert (alone.engine_weights, alone.update) == (2 * 3300, 2 * 300)
    assert (whole.engine_weights, whole.update) == (2 * 3000, 2 * 3000)


def test_an_engine_s_weights_are_split_and_its_cache_on_a_gpu_is_not_ours_to_know(tmp_path: Path) -> None:
    split = recipe_with(tmp_path, "engine.tensor_parallel=2", "engine.gpus_per_worker=2")
    on_cpu = recipe_with(tmp_path, "engine.gpus_per_worker=0", "engine.kv_cache_gib=0.5")

    on_gpus, in_memory = (derive(recipe, ModelSize(3001, 3001)).memory for recipe in (split, on_cpu))

    assert isinstance(on_gpus, Memory)
    assert isinstance(in_memory, Memory)
    assert (on_gpus.engine_weights, on_gpus.engine_kv_cache) == (1501 * 2, None)
    assert (in_memory.engine_weights, in_memory.engine_kv_cache) == (3001 * 2, GIB // 2)


# --- parameters


@pytest.mark.parametrize(
    "scratch",
    [
        ScratchModel(),
        ScratchModel(
            vocabulary_size=300,
            width=96,
            layers=3,
            heads=6,
            key_value_heads=3,
            mlp_width=100,
            vision_width=64,
            vision_layers=2,
            vision_heads=2,
            vision_mlp_width=70,
        ),
    ],
)
def test_the_parameters_are_those_of_the_model_transformers_builds(scratch: ScratchModel) -> None:
    text = {
        "vocab_size": scratch.vocabulary_size,
        "hidden_size": scratch.width,
        "intermediate_size": scratch.mlp_width,
        "num_hidden_layers": scratch.layers,
        "num_attention_heads": scratch.heads,
        "num_key_value_heads": scratch.key_value_heads,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    vision = {
        "depth": scratch.vision_layers,
        "hidden_size": scratch.vision_width,
        "intermediate_size": scratch.vision_mlp_width,
        "num_heads": scratch.vision_heads,
        "out_hidden_size": scratch.width,
    }
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
        )

    assert parameter_count(scratch) == sum(parameter.numel() for parameter in model.parameters())


def test_a_model_from_scratch_brings_its_own_parameter_count(tmp_path: Path) -> None:
    derived = derive(recipe_with(tmp_path, "model={path: null, scratch: {}}"))

    assert derived.size == ModelSize(parameter_count(ScratchModel()), parameter_count(ScratchModel()))
    assert derived.memory is not None


def test_a_token_s_keys_and_values_fill_all_layers() -> None:
    scratch = ScratchModel(width=64, heads=4, key_value_heads=2, layers=3)

    assert kv_bytes_per_token(scratch, Engine(precision=Precision.BF16)) == 2 * 3 * 32 * 2


# --- what cannot work


def test_a_recipe_that_can_work_has_no_problems(tmp_path: Path) -> None:
    assert problems(recipe_with(tmp_path)) == []
    assert problems(recipe_with(tmp_path, "model={path: null, scratch: {}}")) == []


SCRATCH = "model={path: null, scratch: {}}"
JUDGE = "rewards={correctness: judge, judge: {url: 'https://judge', requests_at_once: 2}}"


@pytest.mark.parametrize(
    ("overrides", "start", "remedy"),
    [
        (["stage1.rows_per_step=2"], "stage1.rows_per_step: 2 ", "lower learner.ranks"),
        (["stage2.rows_per_step=2"], "stage2.rows_per_step: 2 ", "lower learner.ranks"),
        (["rl.prompts_per_step=2"], "rl.prompts_per_step: 2 ", "lower learner.ranks"),
        (["rl.minibatches=4"], "rl.minibatches: 4 do not divide rl.prompts_per_step (10)", "change one of them"),
        (["rl.minibatches=5"], "rl.minibatches: 5 of 2 groups each leave some of 3 ranks idle", "lower it"),
        (["rl.correction=decoupled_ppo"], "rl.proximal: recomputed, ", "raise rl.minibatches"),
        (
            ["rl.correction=decoupled_ppo", "rl.proximal=interpolated", "rl.max_policy_lag=0"],
            "rl.proximal: interpolated, ",
            "raise rl.max_policy_lag",
        ),
        (["rl.response_tokens=1000"], "rl.response_tokens: 1000 ", "lower it or raise the limit"),
        (["evaluation.response_tokens=1000"], "evaluation.response_tokens: 1000 ", "lower it or raise"),
        (["engine.tokens_per_batch=19"], "engine.tokens_per_batch: 19 ", "raise it or lower those"),
        (["learner.gpus_per_rank=2"], "learner.gpus_per_rank: got 2", "raise learner.ranks"),
        (["engine.tensor_parallel=2"], "engine.gpus_per_worker: got 0.5 ", "give a worker as many GPUs"),
        (["engine.gpus_per_worker=2"], "engine.gpus_per_worker: got 2", "raise engine.tensor_parallel"),
        (["learner.cores=['0','1','2','3']"], "learner.cores: 4 entries for learner.ranks 3", "leave some out"),
        (["engine.workers_at_most=3"], "engine.workers_at_most: got 3, fewer than the 4", "raise it, lower those"),
        (["engine.cores=['0','1','2','3','4']"], "engine.cores: 5 entries for engine.workers 4", "leave some out"),
        (
            ["learner.cores=['0-1','2']", "learner.threads_per_rank=2"],
            "learner.cores: 2 threads (learner.threads_per_rank) are more than the cores of '2'",
            "lower the threads",
        ),
        (
            ["engine.gpus_per_worker=0", "engine.cores=['0-1','4-6']", "engine.threads_per_worker=3"],
            "engine.cores: 3 threads (engine.threads_per_worker) are more than the cores of '0-1'",
            "lower the threads",
        ),
        (
            ["rewards.confidence_gradient=exact", "learner.attention=flash_attention_2", "learner.share_prompts=false"],
            "learner.attention: flash_attention_2 takes no tree mask, which rewards.confidence_gradient exact ",
            "sdpa or eager",
        ),
        (
            ["rewards.confidence_gradient=exact", "rewards.divide_by_std=true", "rewards.credit=joint"],
            "rewards.divide_by_std: the exact gradient is over all confidences ",
            "rewards.confidence_gradient to sampled",
        ),
        (
            ["learner.attention=flash_attention_2"],
            "learner.attention: flash_attention_2 takes no tree mask, which learner.share_prompts ",
            "share_prompts to false",
        ),
        (["learner.fp32_head=true"], "learner.fp32_head and engine.fp32_head differ, ", "set both or neither"),
        (["engine.fp32_head=true"], "learner.fp32_head and engine.fp32_head differ, ", "set both or neither"),
        (
            ["rewards.correctness=numeric", "rewards.preset=rlcr"],
            "rewards.correctness: numeric ",
            "set it to exact, or the reading to strict",
        ),
        (
            ["rewards.correctness=a.b:C", "reward_service.seconds_per_group=19.9"],
            "reward_service.seconds_per_group: 19.9 is less than the 20 ",  # 4 responses of 5 s
            "raise it or lower that",
        ),
        (
            [JUDGE, "reward_service.seconds_per_group=99"],
            "reward_service.seconds_per_group: 99 is less than the 100 ",  # 2 rounds of 3 times 10 s and 2 pauses of 10
            "raise it or lower those",
        ),
        (["seeding.rows_per_prompt=33"], "seeding.rows_per_prompt: 33 ", "lower it or raise those"),
        (
            ["evaluation.temperature=0", "evaluation.samples_per_prompt=2"],
            "evaluation.samples_per_prompt: 2 ",
            "evaluation.temperature above 0",
        ),
        (["model.min_image_pixels=9", "model.max_image_pixels=8"], "model.min_image_pixels: 9 ", "swap them"),
        ([SCRATCH, "learner.lora={}"], "learner.lora: ", "set lora to null"),
        (["transfer.adapters=true"], "transfer.adapters: there are none ", "set it, or adapters to false"),
        (
            ["transfer.adapters=true", "learner.lora={rank: 513}"],
            "transfer.adapters: vLLM takes ranks up to 512, and learner.lora.rank is 513",
            "lower it, or set adapters to false",
        ),
        (
            ["transfer.adapters=true", "learner.lora={}", "transfer.deltas=true"],
            "transfer.deltas: with transfer.adapters ",
            "set one of the two to false",
        ),
        (
            ["transfer.adapters=true", "learner.lora={}", "engine.precision=fp32"],
            "transfer.adapters: vLLM's kernels for adapters on GPUs take no fp32",
            "set engine.precision to bf16",
        ),
        (
            ["transfer.through=nccl", "engine.gpus_per_worker=1", "learner.gpus_per_rank=0"],
            "transfer.through: nccl goes from GPU to GPU, and learner.gpus_per_rank is 0",
            "or set object_store",
        ),
        (
            ["transfer.through=nccl"],
            "transfer.through: nccl goes from GPU to GPU, and engine.gpus_per_worker is 0.5",
            "",
        ),
        (
            ["transfer.through=nccl", "transfer.deltas=true", "engine.gpus_per_worker=1"],
            "transfer.deltas: they go through the object store",
            "change one of them",
        ),
        ([SCRATCH, "model.scratch.width=180"], "model.scratch.width: 180 ", "multiple of 8"),
        ([SCRATCH, "model.scratch.vision_width=72"], "model.scratch.vision_width: 72 ", "multiple of 16"),
        ([SCRATCH, "model.scratch.key_value_heads=3"], "model.scratch.key_value_heads: 3 ", "take a divisor"),
        (
            [SCRATCH, "engine.gpus_per_worker=0", "engine.kv_cache_gib=0.001"],
            "engine.kv_cache_gib: 0.001 ",
            "raise it or lower engine.tokens_per_sequence",
        ),
    ],
)
def test_a_combination_that_cannot_work_is_named_with_its_remedy(
    tmp_path: Path, overrides: list[str], start: str, remedy: str
) -> None:
    found = problems(recipe_with(tmp_path, *overrides))

    assert len(found) == 1
    assert found[0].startswith(start)
    assert remedy in found[0]


@pytest.mark.parametrize(
    "overrides",
    [
        ["rl.prompts_per_step=3", "stage1.rows_per_step=3", "stage2.rows_per_step=3"],
        ["rl.minibatches=2", "rl.correction=decoupled_ppo"],
        ["rl.correction=decoupled_ppo", "rl.proximal=interpolated"],
        ["rl.response_tokens=999", "evaluation.response_tokens=999"],
        ["engine.tokens_per_batch=20"],
        ["engine.tensor_parallel=2", "engine.gpus_per_worker=2"],
        ["learner.cores=['0-1','2-3','4-5']", "learner.threads_per_rank=2", "engine.cores=['6-7']"],
        ["engine.gpus_per_worker=0", "engine.cores=['6-7']", "engine.threads_per_worker=2"],
        ["seeding.source=annotators", "seeding.rows_per_prompt=33"],
        ["evaluation.temperature=0"],
        ["rewards.confidence_gradient=exact", "learner.attention=eager"],
        ["rewards.correctness=a.b:C", "reward_service.seconds_per_group=20"],
        ["rewards.correctness=numeric", "reward_service.seconds_per_group=1"],
        [JUDGE, "reward_service.seconds_per_group=100"],
        ["model.min_image_pixels=8", "model.max_image_pixels=8"],
    ],
)
def test_the_edge_of_what_works_is_allowed(tmp_path: Path, overrides: list[str]) -> None:
    assert problems(recipe_with(tmp_path, *overrides)) == []
