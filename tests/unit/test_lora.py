from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from configs.schema import Lora
from learner.architecture import with_targets
from learner.lora import adapter_parameters, add_adapters, mergeable_parameters, without_adapters

IDS = torch.tensor([[5, 9, 2, 7]])


def small_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def moved(lora: Lora) -> PreTrainedModel:
    """A model whose adapters were trained a little."""
    model = small_model()
    add_adapters(model, lora)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        adam.step()
        adam.zero_grad()
    return model


def test_new_adapters_change_nothing_and_are_all_that_is_trained() -> None:
    model, plain = small_model(), small_model()

    add_adapters(model, Lora(rank=4))

    torch.testing.assert_close(logits(model), logits(plain))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 4 * (
        2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 24)  # query and output, key and value, the MLP's three; two layers
    )


@pytest.mark.parametrize("lora", [Lora(rank=4, alpha=7), Lora(rank=2, targets=("q_proj", "down_proj"))])
def test_the_merged_weights_are_an_ordinary_model_that_says_the_same(lora: Lora) -> None:
    model, plain = moved(lora), small_model()
    before = logits(plain)

    missing, unexpected = plain.load_state_dict({m.name: m.merged() for m in mergeable_parameters(model)}, strict=False)

    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied: it came under the embedding's name
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-5)
    assert (logits(plain) - before).abs().max() > 0.01


def test_adapters_alone_are_what_peft_reads() -> None:
    model = moved(Lora(rank=4, alpha=7, targets=("q_proj", "down_proj")))
    config = LoraConfig(r=4, lora_alpha=7, target_modules=["q_proj", "down_proj"])
    read = get_peft_model(small_model(), config)

    found = set_peft_model_state_dict(read, {m.name: m.merged() for m in adapter_parameters(model)})

    assert found.unexpected_keys == []
    torch.testing.assert_close(logits(read), logits(model))


def test_without_its_adapters_it_is_the_model_it_was_and_with_them_it_goes_on_to_learn() -> None:
    model = moved(Lora(rank=4))
    after = logits(model)

    with without_adapters(model):
        before = logits(model)

    torch.testing.assert_close(before, logits(small_model()))
    torch.testing.assert_close(logits(model), after)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_what_is_recomputed_in_the_backward_pass_reaches_the_adapters_all_the_same() -> None:
    def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
        add_adapters(model, Lora(rank=4))
        model.train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    recomputed, kept = small_model(), small_model()
    recomputed.gradient_checkpointing_enable()
    torch.manual_seed(1)
    found = gradients(recomputed)
    torch.manual_seed(1)  # adapters begin at random

    torch.testing.assert_close(found, gradients(kept))
    assert found


def test_a_target_that_no_layer_bears_the_name_of_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learner.lora.targets: \['query'\] are no linear .* 'q_proj'"):
        add_adapters(small_model(), Lora(targets=("q_proj", "query")))


def test_the_vision_tower_gets_none(tiny_model: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_model)

    add_adapters(model, Lora())

    adapted = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted and not any("visual" in name for name in adapted)


def test_targets_that_a_recipe_leaves_open_are_named_from_the_model_s_configuration(tmp_path: Path) -> None:
    small_model().config.save_pretrained(tmp_path)

    assert with_targets(Lora(targets=("q_proj",)), tmp_path).targets == ("q_proj",)
    every = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert with_targets(Lora(rank=4), tmp_path) == Lora(rank=4, targets=every)
