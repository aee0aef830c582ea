"""A model out of a GGUF file, as an ordinary Hugging Face directory that can be trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from configs.schema import Precision

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}
_READERS = ("gguf", "accelerate")  # what transformers reads GGUF files with


def require_readers() -> None:
    """Raise ValueError where a package that transformers reads GGUF files with is missing."""
    if missing := [package for package in _READERS if find_spec(package) is None]:
        raise ValueError(f"GGUF files are read with the packages {missing}: pip install 'caliber[words]'")


def unpack_gguf(file: Path, folder: Path, precision: Precision) -> int:
    """Write the model, the tokenizer and the chat template of a GGUF file into `folder`; returns its parameters.

    Raises ValueError where a package for reading is missing, or where the file lacks a chat template or an end token.
    """
    require_readers()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        raise ValueError(f"{file} has no chat template, or no end token: take the file of a model for chats")
    # Without `dequantize` it would count as quantized ever after, and refuse to be saved.
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=_DTYPES[precision],
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
