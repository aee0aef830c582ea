"""What a model is, from its configuration alone: no weights are read."""

from __future__ import annotations

from collections.abc import Iterator
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
from configs.schema import ConfidenceGradient, Lora, Recipe
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


def tree_mask_problems(source: Path | str, recipe: Recipe) -> list[str]:
    """What of the recipe needs a tree mask, where layers of the model in `source` would not keep to one.

    transformers gives such a mask to layers of every kind as it is: those with a sliding window would see all of it,
    and recurrent ones, which know no mask, the responses before theirs.
    """
    text = _config(source).get_text_config(decoder=True)
    return [
        f"{needs} needs a tree mask, which {layers} would not keep to; set it to {remedy}"
        for layers in _without_tree_mask(text, recipe.engine.tokens_per_sequence)
        for needs, remedy, asked in (
            ("learner.share_prompts", "false", recipe.learner.share_prompts),
            (
                "rewards.confidence_gradient: exact",
                "sampled",
                recipe.rewards.confidence_gradient is ConfidenceGradient.EXACT,
            ),
        )
        if asked
    ]


def refuse_tree_masks(source: Path | str, recipe: Recipe) -> None:
    """Raise ValueError with what `tree_mask_problems` finds."""
    if found := tree_mask_problems(source, recipe):
        raise ValueError(f"the recipe cannot work with the model in {source}:\n  " + "\n  ".join(found))


def _without_tree_mask(text: PretrainedConfig, tokens_per_sequence: int) -> Iterator[str]:
    """Kinds of layers in a language model that do not keep to a tree mask over sequences of so many tokens."""
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:  # all of one kind
        kinds = ["sliding_attention"] if window and getattr(text, "use_sliding_window", True) else []
    for kind in sorted({*kinds} - {"full_attention"}):
        if kind != "sliding_attention":
            yield f"the model's {kind} layers (layer_types)"
        elif not window or window < tokens_per_sequence:  # a wider one hides nothing
            yield (
                f"the model's sliding_attention layers, of a window (sliding_window: {window}) below "
                f"engine.tokens_per_sequence ({tokens_per_sequence}),"
            )


def _config(source: Path | str) -> PretrainedConfig:
    """Of the model in a Hugging Face directory or a GGUF file."""
    if (file := Path(source)).is_file():
        require_readers()
        return AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def _outline(source: Path) -> PreTrainedModel:
    """The model in a Hugging Face directory or a GGUF file without its weights, on the meta device."""
    config = _config(source)
    with torch.device("meta"):
        return model_class(config).from_config(config)
