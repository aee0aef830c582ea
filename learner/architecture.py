"""What a model is, from its configuration alone: no weights are read."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig

from configs.memory import ModelSize
from configs.schema import Lora
from learner.gguf_model import require_readers
from learner.lora import add_adapters


def model_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The class that loads a model with its vision tower where it has one."""
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def size_of(source: Path, lora: Lora | None) -> ModelSize:
    """Of the model in a Hugging Face directory or a GGUF file; tied parameters count once.

    Raises OSError or ValueError where there is none, one that transformers does not know, or none for the adapters.
    """
    if source.is_file():
        require_readers()
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    else:
        config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model = model_class(config).from_config(config)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if lora is None:
            return ModelSize(parameters, parameters)
        add_adapters(model, lora)
    return ModelSize(parameters, sum(p.numel() for p in model.parameters() if p.requires_grad))
