"""The learner's models in training: nothing in their forward pass is random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from configs.schema import Learner, Precision
from learner.dropout import end_dropout, without_dropout
from learner.policy import load_model

IDS = torch.arange(12)[None]


def gpt2() -> PreTrainedModel:
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2, **rates))


def llama() -> PreTrainedModel:
    """Its rate is in no layer of dropout, but read by the attention."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_dropout=0.5,
        )
    )


def in_training(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.train()(input_ids=IDS).logits


@pytest.mark.parametrize("make", [gpt2, llama])
def test_two_forward_passes_in_training_agree(make: type[PreTrainedModel], tmp_path: Path) -> None:
    given = make()
    given.save_pretrained(tmp_path)
    assert not torch.equal(in_training(given), in_training(given))

    model = load_model(str(tmp_path), Learner(precision=Precision.FP32))

    assert torch.equal(in_training(model), in_training(model))


def test_a_model_that_sees_has_none_in_its_language_model_either(tiny_model: Path, tmp_path: Path) -> None:
    given = AutoModelForImageTextToText.from_pretrained(tiny_model)
    given.config.text_config.attention_dropout = 0.5
    given.save_pretrained(tmp_path)

    model = load_model(str(tmp_path), Learner(precision=Precision.FP32))

    assert torch.equal(in_training(model), in_training(model))
    model.save_pretrained(tmp_path / "saved")
    assert AutoConfig.from_pretrained(tmp_path / "saved").text_config.attention_dropout == 0.0


def test_every_rate_of_a_configuration_is_0_and_nothing_else_of_it_is_changed() -> None:
    config = PretrainedConfig(hidden_dropout=0.1, layerdrop=0.2, drop_path_rate=1, router_jitter_noise=0.1, eps=0.5)
    config.drop_tokens, config.dropout_kind = True, "none"

    found = without_dropout(config)

    assert [found.hidden_dropout, found.layerdrop, found.drop_path_rate, found.router_jitter_noise] == [0, 0, 0, 0]
    assert (found.eps, found.drop_tokens, found.dropout_kind) == (0.5, True, "none")


def test_layers_whose_rate_is_no_setting_are_reached_too() -> None:
    layers = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout2d(0.3))

    end_dropout(layers)

    assert [layer.p for layer in layers] == [0.0, 0.0]
