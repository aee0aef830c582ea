"""What `caliber check` says of a model that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.check import describe_fit, describe_recipe
from configs.bundles import Bundle
from configs.load import load_recipe

WORDS = Path(__file__).parents[2] / "configs" / "words" / "words.yaml"


def memory_line(*overrides: str) -> str:
    (line,) = [line for line in describe_recipe(load_recipe(WORDS, overrides)).splitlines() if "memory " in line]
    return line


def of_path(folder: Path) -> str:
    return memory_line("model.gguf=null", f"model.path={folder}")


def test_the_memory_for_a_gguf_model_is_estimated_before_it_is_unpacked() -> None:
    assert memory_line().startswith("memory   134.5M parameters: 2.25 GiB a rank")  # 16 bytes each, and 2 for the KL


def test_the_parameters_of_a_folder_are_counted_without_its_weights(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "llama", hidden_size=1024, num_hidden_layers=2, vocab_size=1000, tie_word_embeddings=True
    )
    config.save_pretrained(tmp_path)
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())

    assert of_path(tmp_path).startswith(f"memory   {parameters / 1e6:.1f}M parameters")


def test_of_adapters_they_alone_have_gradients_and_moments() -> None:
    # 134.5M frozen in bf16, and adapters of rank 16 on seven layers of each of the 30
    adapters = 30 * 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    rank = 2 * 134_515_008 + (2 + 2 + 12) * adapters

    told = memory_line("learner.lora={rank: 16}")

    assert told.startswith(f"memory   134.5M parameters, {adapters / 1e6:.1f}M of adapters trained: {rank / 2**30:.2f}")


def test_what_deltas_cost_in_memory_is_said_where_they_are_asked_for() -> None:
    def told(*overrides: str) -> str:
        return describe_recipe(load_recipe(WORDS, overrides))

    assert "for deltas 0.25 GiB on rank 0's host" in told("transfer.deltas=true")  # 134.5M values of 2 bytes
    assert "in fp32" not in told("transfer.deltas=true")
    assert "in fp32 a step changes nearly every value" in told("transfer.deltas=true", "learner.precision=fp32")
    assert "for deltas" not in told()


def test_what_an_update_sends_is_said(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2, vocab_size=5000)
    config.save_pretrained(tmp_path)
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    adapters = 16 * 2 * (64 + 64)  # of the queries of two layers

    def told(*overrides: str) -> str:
        recipe = load_recipe(WORDS, ["model.gguf=null", f"model.path={tmp_path}", *overrides])
        return next(line for line in describe_recipe(recipe).splitlines() if line.startswith("transfer "))

    whole = f"up to {2 * parameters / 1e6:.1f} MB an update"  # bf16
    assert told() == f"transfer whole weights, {whole}, through Ray's object store"
    assert told("transfer.through=nccl") == f"transfer whole weights, {whole}, from GPU to GPU"
    assert told("transfer.deltas=true").startswith("transfer the values that changed, whole weights at least every 20 ")
    alone = told("transfer.adapters=true", "learner.lora={targets: [q_proj]}", "learner.precision=fp32")
    assert alone.startswith(f"transfer adapters alone, up to {4 * adapters / 1e6:.1f} MB an update")


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_model_is_said_to_be_none(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path if exists else tmp_path / "elsewhere"

    told = of_path(folder)

    assert told.startswith("memory   not estimated: ")
    assert str(folder) in told


def test_where_workers_and_ranks_are_kept_is_said() -> None:
    def told(*overrides: str) -> str:
        return describe_recipe(load_recipe(WORDS, overrides))

    assert "cores    rollout workers where the system puts them; learner ranks where the" in told()
    placed = told("engine.workers=2", "engine.cores=['0-3','4-7']", "learner.cores=['8-9']")
    assert "cores    rollout workers in turn on 0-3 and 4-7; learner ranks on 8-9\n" in placed


def test_a_cluster_that_has_room_is_told_with_where() -> None:
    recipe = load_recipe(WORDS, ["engine.workers=2", "learner.ranks=4", "learner.gpus_per_rank=1"])

    told = describe_fit(recipe, [Bundle(16, 4), Bundle(8, 0)])

    assert told.splitlines() == [
        "cluster  2 nodes: 1 of 16 CPUs and 4 GPUs, 1 of 8 CPUs",
        "         has room for stage 3, if other jobs leave it: learner ranks on 1, rollout workers on 1, "
        "reward workers on 1 of its nodes",
    ]


def test_how_many_of_the_workers_that_may_join_have_room_is_told_too() -> None:
    recipe = load_recipe(
        WORDS, ["engine.workers=1", "engine.workers_at_most=9", "engine.gpus_per_worker=1", "learner.gpus_per_rank=1"]
    )

    told = describe_fit(recipe, [Bundle(64, 8)])

    left = 8 - 1 - recipe.learner.ranks
    assert told.splitlines()[2:] == [f"         and for {left} of 8 more rollout workers"]
    assert "rollout  1 workers, up to 9, " in describe_recipe(recipe)


def test_a_cluster_without_room_is_told_with_who_lacks_it_and_what_to_change() -> None:
    recipe = load_recipe(
        WORDS, ["engine.workers=2", "engine.tensor_parallel=8", "engine.gpus_per_worker=8", "learner.ranks=1"]
    )

    told = describe_fit(recipe, [Bundle(64, 8), Bundle(64, 4), Bundle(64, 4)])

    each = Bundle(recipe.engine.cpus_per_worker, 8)
    assert told.splitlines()[1:] == [
        f"PROBLEM  the cluster has no room for 1 of 2 rollout workers, {each} each: "
        "add nodes, or lower engine.workers, cpus_per_worker or gpus_per_worker"
    ]
