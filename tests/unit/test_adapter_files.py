"""Adapters on disk: read by peft as they are, and those of several stages as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from configs.schema import Lora
from learner.adapter_files import Adapter, add_to_weights, stacked, write_adapter
from learner.lora import adapter_parameters, add_adapters
from tests.unit.test_lora import logits, small_model


def adapter(folder: Path, lora: Lora, seed: int) -> Adapter:
    """One as if it had been trained, written and read."""
    model = small_model()
    add_adapters(model, lora)
    generator = torch.Generator().manual_seed(seed)
    found = {m.name: 0.2 * torch.randn(m.parameter.shape, generator=generator) for m in adapter_parameters(model)}
    write_adapter(folder, found, lora.rank, lora.alpha_taken, "the/base")
    return Adapter.read(folder)


def with_merged(*adapters: Adapter) -> PreTrainedModel:
    model = small_model()
    for one in adapters:
        add_to_weights(model, one)
    return model


def test_a_written_adapter_is_read_by_peft_and_says_what_the_merged_weights_say(tmp_path: Path) -> None:
    found = adapter(tmp_path, Lora(rank=4, alpha=7, targets=("q_proj", "down_proj")), seed=0)

    read = PeftModel.from_pretrained(small_model(), tmp_path)

    assert (found.rank, found.alpha, found.base) == (4, 7, "the/base")
    assert found.targets == ("down_proj", "q_proj")
    assert {name for name, _ in read.named_parameters() if "lora_" in name} == {
        name.replace(".weight", ".default.weight") for name in found.tensors
    }
    torch.testing.assert_close(logits(read), logits(with_merged(found)), rtol=1e-4, atol=1e-5)
    assert (logits(read) - logits(small_model())).abs().max() > 0.01


def test_the_adapters_of_stages_stacked_add_what_they_add_one_after_the_other(tmp_path: Path) -> None:
    lora = Lora(rank=3, alpha=5)
    stages = [adapter(tmp_path / str(seed), lora, seed) for seed in range(3)]

    together = stacked(stages)
    write_adapter(tmp_path / "together", together.tensors, together.rank, together.alpha, together.base)

    assert (together.rank, together.scaling) == (9, pytest.approx(5 / 3))
    read = PeftModel.from_pretrained(small_model(), tmp_path / "together")
    torch.testing.assert_close(logits(read), logits(with_merged(*stages)), rtol=1e-4, atol=1e-5)


def test_adapters_of_other_layers_or_scalings_are_not_stacked(tmp_path: Path) -> None:
    first = adapter(tmp_path / "first", Lora(rank=4), 0)

    for number, lora in enumerate((Lora(rank=4, targets=("q_proj",)), Lora(rank=4, alpha=8))):
        with pytest.raises(ValueError, match="not of one recipe"):
            stacked([first, adapter(tmp_path / str(number), lora, 1)])
