"""The recipes for Qwen2.5-VL-7B, as far as they can be held against anything without the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from transformers import Qwen2_5_VLConfig

from cluster.check import describe_recipe
from configs.derive import derive
from configs.load import load_recipe
from learner.architecture import size_of
from rewards.safety import refuse_unsafe

FOLDER = Path(__file__).parents[2] / "configs" / "emocaliber"
NODES = {"8gpus": 1, "4nodes": 4}
GPU = 80e9  # bytes
FOR_ACTIVATIONS = 20e9  # bytes of a rank: logits of 8,192 tokens over 152,064 words are 5 GB in fp32, and as much again


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of Qwen2.5-VL-7B and no weights."""
    folder = tmp_path_factory.mktemp("model")
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = Qwen2_5_VLConfig(text_config=text | heads, vision_config=vision, tie_word_embeddings=False)
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", NODES)
def test_a_recipe_takes_all_gpus_of_its_nodes_and_fits_them(name: str, model: Path) -> None:
    recipe = load_recipe(FOLDER / f"{name}.yaml", [f"model.path={model}"])
    size = size_of(model, None)

    derived = derive(recipe, size)

    assert size.parameters == pytest.approx(8.29e9, rel=1e-3)
    assert derived.ray_gpus == 8 * NODES[name]
    assert derived.memory is not None
    assert derived.memory.rank < GPU - FOR_ACTIVATIONS
    assert derived.memory.engine_weights < recipe.engine.memory_share * GPU / 2  # the rest is for keys and values


@pytest.mark.parametrize("name", NODES)
def test_check_has_nothing_against_a_recipe(name: str, model: Path) -> None:
    told = describe_recipe(load_recipe(FOLDER / f"{name}.yaml", [f"model.path={model}"]))

    assert "8292.2M parameters" in told
    assert "safe: no response gains" in told
    assert "PROBLEM" not in told


def test_four_nodes_differ_from_one_in_three_settings() -> None:
    one, four = (dict(_flat(load_recipe(FOLDER / f"{name}.yaml").model_dump())) for name in NODES)

    assert {key for key in one if one[key] != four[key]} == {"learner.ranks", "engine.workers", "transfer.deltas"}


def test_the_reward_of_the_paper_is_an_override_away() -> None:
    overrides = ["rewards.preset=emocaliber", "rewards.allow_unsafe=true"]
    assert all(override in (FOLDER / "8gpus.yaml").read_text() for override in overrides)

    recipe = load_recipe(FOLDER / "8gpus.yaml", overrides)

    refuse_unsafe(recipe.rewards)
    assert "PROBLEM" not in describe_recipe(recipe)


def _flat(section: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
