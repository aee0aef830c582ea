"""A very small Llama, and how llama.cpp's converter would write it into a GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END = 2
TOKENS = (*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "</", "></")  # bytes, and what merges make of them
MERGES = ("< /", "> </")

_NORMAL, _CONTROL = 1, 3  # types of tokens
_HEADS, _KEY_VALUE_HEADS = 2, 1
_BLOCKS = GGMLQuantizationType.Q8_0  # 32 numbers of 8 bits, and their scale
_IN_BLOCKS = "mlp.down_proj"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def small_llama() -> LlamaForCausalLM:
    """Random weights; embeddings are tied, and one matrix of each layer holds what blocks of eight bits can say."""
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_KEY_VALUE_HEADS,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        eos_token_id=END,
    )
    generator = torch.Generator().manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            if _IN_BLOCKS in name:
                parameter.copy_(torch.from_numpy(dequantize(quantize(parameter.numpy(), _BLOCKS), _BLOCKS)))
    return model


def write_gguf(path: Path, model: LlamaForCausalLM, template: str | None = TEMPLATE) -> None:
    """The model, and a byte-level tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KEY_VALUE_HEADS)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // _HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([_CONTROL if token in SPECIAL else _NORMAL for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(SPECIAL.index("<|im_start|>"))
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END)
    if template is not None:
        writer.add_chat_template(template)
    for name, parameter in model.named_parameters():
        weight = _interleaved(name, parameter.detach().numpy())
        for theirs, its in _NAMES.items():
            name = name.replace(theirs, its)
        if "ffn_down" in name:
            writer.add_tensor(name, quantize(weight, _BLOCKS), raw_dtype=_BLOCKS)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotary embedding turns pairs of rows: halves of a head in transformers, neighbours in GGUF."""
    heads = _HEADS if "q_proj" in name else _KEY_VALUE_HEADS if "k_proj" in name else None
    if heads is None:
        return weight
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
