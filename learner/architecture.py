"""What a model is, from its configuration alone: no weights are read."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig

from learner.gguf_model import require_readers


def model_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The class that loads a model with its vision tower where it has one."""
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def parameters_of(source: Path) -> int:
    """Parameters of the model in a Hugging Face directory or a GGUF file; tied ones count once.

    Raises OSError or ValueError where there is none, or one that transformers does not know.
    """
    if source.is_file():
        require_readers()
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    else:
        config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model = model_class(config).from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())
