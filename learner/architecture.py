"""What a model is, from its configuration alone: no weights are read."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from configs.memory import ModelSize
from configs.schema import Lora
from learner.gguf_model import require_readers
from learner.lora import adapted_layers, add_adapters


def model_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The class that loads a model with its vision tower where it has one."""
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def size_of(source: Path, lora: Lora | None) -> ModelSize:
    """Of the model in a Hugging Face directory or a GGUF file; tied parameters count once.

    Raises OSError or ValueError where there is none, one that transformers does not know, or none for the adapters.
    """
    model = _outline(source)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if lora is None:
        return ModelSize(parameters, parameters)
    with torch.device("meta"):
        add_adapters(model, lora)
    return ModelSize(parameters, sum(p.numel() for p in model.parameters() if p.requires_grad))


def with_targets(lora: Lora, folder: Path) -> Lora:
    """The same with the names of all layers that get adapters in the model of a Hugging Face directory."""
    if lora.targets is not None:
        return lora
    names = adapted_layers(_outline(folder), lora)
    return lora.model_copy(update={"targets": tuple(sorted({name.rpartition(".")[2] for name in names}))})


def _outline(source: Path) -> PreTrainedModel:
    """The model in a Hugging Face directory or a GGUF file without its weights, on the meta device."""
    if source.is_file():
        require_readers()
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    else:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    with torch.device("meta"):
        return model_class(config).from_config(config)
