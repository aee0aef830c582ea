"""A small Qwen2.5-VL with a tokenizer of its own, from random weights.

What comes out is an ordinary Hugging Face directory: transformers and vLLM load it as they
would the released models, and any of those can take its place in a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from configs.schema import ScratchModel

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
_SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

# ChatML as Qwen writes it, without a default system turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONGEST_SEQUENCE = 4096  # positions a model from scratch is said to support, tokens


def train_tokenizer(texts: Iterable[str], tags: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every tag and every digit is one token.

    `tags` are names without brackets. Digits stand alone so that a confidence is sampled digit by
    digit and nearby confidences share tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(marks),
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, VISION_START, VISION_END, IMAGE, VIDEO],
        model_max_length=LONGEST_SEQUENCE,
        clean_up_tokenization_spaces=False,
    )


def model_config(scratch: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The configuration of a Qwen2.5-VL of the wanted widths."""
    head_size = scratch.width // scratch.heads
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    # Rotary sections (time, height, width) in the released models' proportions, 2:3:3 of half a head.
    spatial = 3 * head_size // 16
    text = {
        "vocab_size": len(tokenizer),  # a small corpus may not fill the vocabulary
        "hidden_size": scratch.width,
        "intermediate_size": scratch.mlp_width,
        "num_hidden_layers": scratch.layers,
        "num_attention_heads": scratch.heads,
        "num_key_value_heads": scratch.key_value_heads,
        "max_position_embeddings": LONGEST_SEQUENCE,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [head_size // 2 - 2 * spatial, spatial, spatial],
        },
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ids[END],
        "pad_token_id": ids[PAD],
    }
    vision = {
        "depth": scratch.vision_layers,
        "hidden_size": scratch.vision_width,
        "intermediate_size": scratch.vision_mlp_width,
        "num_heads": scratch.vision_heads,
        "out_hidden_size": scratch.width,
        "fullatt_block_indexes": list(range(scratch.vision_layers)),
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )


def build_scratch_model(
    scratch: ScratchModel, texts: Iterable[str], tags: Sequence[str], folder: Path, seed: int
) -> int:
    """Write model, tokenizer and processor into `folder`; returns the number of parameters.

    `texts` train the tokenizer. The same arguments give the same weights.
    """
    tokenizer = train_tokenizer(texts, tags, scratch.vocabulary_size)
    config = model_config(scratch, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
