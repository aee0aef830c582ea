"""Models with layers that keep to no tree mask, and the settings that would need one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from cluster.check import describe_recipe
from cluster.pipeline import run_one_stage
from configs.load import load_recipe
from configs.schema import Recipe
from learner.architecture import refuse_tree_masks, tree_mask_problems
from learner.batching import TrainingSequence, collate
from learner.policy import ResponseLogprobs
from rollout.chat import Expanded

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
EXACT = "rewards.confidence_gradient=exact"
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
FULL = ["full_attention", "full_attention"]


def config(kind: str, **settings: object) -> PretrainedConfig:
    return AutoConfig.for_model(
        kind,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        **settings,
    )


def recipe_for(folder: Path, *overrides: str) -> Recipe:
    own = [f"output={folder}/run", "model.scratch=null", f"model.path={folder}"]
    return load_recipe(DEMO, [*own, "rewards.confidence_gradient=sampled", *overrides])


def found(folder: Path, kind: str, settings: dict[str, object], *overrides: str) -> list[str]:
    config(kind, **settings).save_pretrained(folder)
    return tree_mask_problems(folder, recipe_for(folder, *overrides))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": False}),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "layer_types": FULL}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 4096}),
        ("gemma2", {"sliding_window": 4096}),
    ],
)
def test_a_model_that_attends_to_all_of_a_sequence_takes_tree_masks(
    tmp_path: Path, kind: str, settings: dict[str, object]
) -> None:
    assert found(tmp_path, kind, settings, EXACT, "engine.tokens_per_sequence=4096") == []


def test_so_does_qwen_2_5_vl(tiny_model: Path) -> None:
    assert tree_mask_problems(tiny_model, recipe_for(tiny_model, EXACT)) == []


@pytest.mark.parametrize(
    ("kind", "settings", "layers"),
    [
        ("gemma2", WINDOW, r"sliding_attention layers, of a window \(sliding_window: 8\) below .*_sequence \(4096\),"),
        ("mistral", {"sliding_window": 4095}, r"sliding_attention layers, of a window \(sliding_window: 4095\) below"),
        ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]}, r"linear_attention layers \(layer_"),
        ("falcon_h1", {}, r"hybrid layers \(layer_types\)"),
    ],
)
def test_one_with_other_layers_is_refused_with_both_settings_and_what_to_set_them_to(
    tmp_path: Path, kind: str, settings: dict[str, object], layers: str
) -> None:
    long = "engine.tokens_per_sequence=4096"

    shared, exact = found(tmp_path, kind, settings, EXACT, long)

    assert shared.startswith("learner.share_prompts needs a tree mask, which the model's ")
    with pytest.raises(ValueError, match=layers):
        refuse_tree_masks(tmp_path, recipe_for(tmp_path, long))
    assert shared.endswith("set it to false") and exact.endswith("set it to sampled")
    assert exact.startswith("rewards.confidence_gradient: exact needs a tree mask, which the model's ")
    assert found(tmp_path, kind, settings, long, "learner.share_prompts=false") == []


def test_the_text_configuration_of_a_model_that_sees_counts(tmp_path: Path) -> None:
    text = config("gemma3_text", **WINDOW).to_dict()
    AutoConfig.for_model("gemma3", text_config=text).save_pretrained(tmp_path)

    assert len(tree_mask_problems(tmp_path, recipe_for(tmp_path))) == 1


def test_check_says_so_and_a_stage_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config("gemma2", **WINDOW).save_pretrained(tmp_path)
    monkeypatch.setattr("cluster.pipeline._prepare", lambda *_: None)

    assert "PROBLEM  learner.share_prompts needs a tree mask, which the model's sliding_attention layers" in (
        describe_recipe(recipe_for(tmp_path))
    )
    with pytest.raises(ValueError, match=r"cannot work with the model in .*\n  learner.share_prompts needs a tree"):
        run_one_stage(recipe_for(tmp_path), 1)


@pytest.mark.parametrize(("window", "same"), [(8, False), (20, True)])
def test_a_window_as_wide_as_a_sequence_changes_nothing_and_a_narrower_one_does(window: int, same: bool) -> None:
    """What the check is for: transformers gives a sliding layer the tree mask as it is."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config("mistral", sliding_window=window)).double().eval()
    rng = np.random.default_rng(1)
    prompt = Expanded(rng.integers(0, 64, 12).astype(np.int32), None, None)
    made = [TrainingSequence(prompt, rng.integers(0, 64, 8).astype(np.int32), np.ones(8, np.float32)) for _ in "ab"]
    module = ResponseLogprobs(model, [], 1.0)

    with torch.no_grad():
        shared, apart = (
            module(collate(rows, pad_token_id=0, image_token_id=None)) for rows in ([made], [[m] for m in made])
        )

    assert torch.allclose(shared, apart, rtol=1e-4, atol=1e-5) is same
