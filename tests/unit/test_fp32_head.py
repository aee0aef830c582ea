"""The last layer in fp32, on a small Llama in bf16 whose embeddings are tied, and on one whose are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.schema import Learner, Precision
from learner.policy import load_model


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=request.param,
        )
    ).save_pretrained(tmp_path)
    return tmp_path


def loaded(folder: Path, fp32_head: bool) -> LlamaForCausalLM:
    return load_model(str(folder), Learner(precision=Precision.BF16, fp32_head=fp32_head))


def test_logits_are_not_rounded_to_the_body_s_precision(folder: Path) -> None:
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    model = loaded(folder, fp32_head=True)

    logits = model.get_output_embeddings()(hidden)

    assert logits.dtype is torch.float32
    exact = hidden.double() @ model.get_output_embeddings().weight.double().T
    torch.testing.assert_close(logits.double(), exact, rtol=0, atol=1e-6)
    rounded = loaded(folder, fp32_head=False).get_output_embeddings()(hidden)
    assert (rounded.double() - exact).abs().max() > 1e-4


def test_the_parameters_stay_what_they_are_called_and_are_trained(folder: Path) -> None:
    plain, model = loaded(folder, fp32_head=False), loaded(folder, fp32_head=True)

    model(input_ids=torch.arange(6)[None]).logits.logsumexp(-1).sum().backward()

    named = dict(model.named_parameters())
    assert named.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in named.items():
        assert parameter.dtype is torch.bfloat16
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
