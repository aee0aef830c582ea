"""From a prompt to what a model reads: the one place that prompt ids and pixel values come from.

The engine gets `render`'s ids, in which each picture is one placeholder, and the pictures; the
learner gets `expand`'s, in which each picture has as many placeholders as features, and the pixel
values. Both use the same processor under the same limits, so the expanded ids are the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from configs.schema import Data, Model
from rollout.pictures import image_size, load_image
from rollout.prompts import Message, Prompt

PLACEHOLDER = "<image>"  # the place of a picture in a message's text

# A message's content as chat templates take it: text, or parts of text and of pictures.
Content = str | list[dict[str, str]]

# Attributes of a configuration that hold ids standing for pictures, videos or sounds, or for their
# edges. Sampled into a response they would ask the model for features that are not there.
_MEDIA_TOKEN = re.compile(r"(image|video|vision|audio|boi|eoi|boa|eoa)_(start_|end_)?token_(id|index)")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Sizes of pictures, in pixels."""

    min_pixels: int | None = None  # the processor scales smaller ones up; None: the model's own limit
    max_pixels: int | None = None  # the processor scales larger ones down; None: the model's own limit
    decoded_pixels: int = 64_000_000  # larger ones are refused before they are decoded

    @classmethod
    def of(cls, model: Model, data: Data) -> ImageLimits:
        """The limits a recipe sets."""
        decoded = int(data.image_megapixels_at_most * 1e6)
        return cls(model.min_image_pixels, model.max_image_pixels, decoded)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt under the model's chat template, up to where the response begins."""

    token_ids: tuple[int, ...]  # one placeholder for each picture
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Expanded:
    """A prompt as the model's forward pass takes it. The last two are None without pictures."""

    token_ids: NDArray[np.int32]  # [P] one image token for each feature
    pixel_values: torch.Tensor | None  # [patches of all pictures, values of a patch] fp32
    image_grid_thw: torch.Tensor | None  # [pictures, 3] int64: patches in time, height, width


def barred_token_ids(config: PretrainedConfig) -> tuple[int, ...]:
    """Ids that a response must never hold: those standing for pictures, videos and sounds.

    The engine does not sample them and the learner leaves them out of the normalisation, so that
    both speak of the same distribution.
    """
    named = {value for name, value in config.to_dict().items() if _MEDIA_TOKEN.fullmatch(name)}
    return tuple(sorted(value for value in named if isinstance(value, int)))


class ChatFormat:
    """Chat template, tokenizer and image processor of one Hugging Face directory.

    Works for vision-language models and for text-only ones.
    """

    def __init__(self, model_dir: str, limits: ImageLimits) -> None:
        self._model_dir = model_dir
        self._limits = limits
        self._config: PretrainedConfig = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
        self._processor: ProcessorMixin | None = None
        if hasattr(self._config, "vision_config"):
            self._processor = AutoProcessor.from_pretrained(model_dir, trust_remote_code=False)
        self.tokenizer: PreTrainedTokenizerBase = (
            self._processor.tokenizer
            if self._processor
            else AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        )

    @property
    def takes_images(self) -> bool:
        """Whether the model sees."""
        return self._processor is not None

    @property
    def image_token_id(self) -> int | None:
        """The id that each feature of a picture has in expanded prompts; None for text-only models."""
        return self._processor.image_token_id if self._processor else None

    @cached_property
    def processor_options(self) -> dict[str, dict[str, int]]:
        """What the limits change in the image processor, for transformers and vLLM alike.

        Raises ValueError for a processor that does not go by numbers of pixels.
        """
        # In the processors that do, both "edges" are numbers of pixels.
        limits = {"shortest_edge": self._limits.min_pixels, "longest_edge": self._limits.max_pixels}
        changed = {name: pixels for name, pixels in limits.items() if pixels is not None}
        if not changed or self._processor is None:
            return {}
        own = {name: size for name, size in dict(self._processor.image_processor.size).items() if size}
        if own.keys() != limits.keys():
            raise ValueError(
                f"{self._model_dir}: its image processor goes by {sorted(own)}, not by numbers of pixels: "
                "leave model.min_image_pixels and model.max_image_pixels out"
            )
        size = own | changed
        if size["shortest_edge"] > size["longest_edge"]:
            raise ValueError(
                f"{self._model_dir}: pictures would need at least {size['shortest_edge']} and at most "
                f"{size['longest_edge']} pixels: set both model.min_image_pixels and model.max_image_pixels"
            )
        return {"size": size}

    def barred_token_ids(self) -> tuple[int, ...]:
        """Ids that a response must never hold."""
        return barred_token_ids(self._config)

    def render(self, prompt: Prompt) -> Rendered:
        """Ids for the engine. Raises ValueError where pictures and their places do not match."""
        if prompt.images and not self.takes_images:
            raise ValueError(f"prompt {prompt.prompt_id} has pictures: {self._model_dir} reads text only")
        marks = sum(message.text.count(PLACEHOLDER) for message in prompt.messages)
        _check_count(prompt, marks, f"times {PLACEHOLDER} in its messages")
        text = self._templated(prompt.messages)
        ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if self.image_token_id is not None:  # a message may spell the token out
            _check_count(prompt, ids.count(self.image_token_id), "image tokens")
        return Rendered(ids, text)

    def load_images(self, prompt: Prompt) -> list[Image.Image]:
        """The prompt's pictures, in order. Raises what `load_image` raises."""
        return [load_image(path, self._limits.decoded_pixels) for path in prompt.images]

    def expand(self, prompt: Prompt) -> Expanded:
        """Ids and pixel values for the learner. Raises what `render` and `load_images` raise."""
        rendered = self.render(prompt)
        if not prompt.images:
            return Expanded(np.array(rendered.token_ids, dtype=np.int32), None, None)
        assert self._processor is not None
        made = self._processor(
            text=[rendered.text],
            images=self.load_images(prompt),
            images_kwargs=self.processor_options,
            text_kwargs={"add_special_tokens": False},
            return_tensors="pt",
        )
        ids = made["input_ids"][0].numpy().astype(np.int32)
        return Expanded(ids, made["pixel_values"], made.get("image_grid_thw"))

    def length(self, prompt: Prompt) -> int:
        """Tokens of the expanded prompt, told by the sizes of its pictures: no pixel is decoded.

        Where the processor does not say how many features a picture has, it counts as one. Raises ValueError as
        `render` does.
        """
        ids = self.render(prompt).token_ids
        features_of = getattr(self._processor, "_get_num_multimodal_tokens", None)  # vLLM asks it, too
        if not prompt.images or features_of is None:
            return len(ids)
        set_limits = {"min_pixels": self._limits.min_pixels, "max_pixels": self._limits.max_pixels}
        changed = {name: pixels for name, pixels in set_limits.items() if pixels is not None}
        sizes = [image_size(path)[::-1] for path in prompt.images]  # height first
        try:
            features: list[int] = features_of(image_sizes=sizes, **changed)["num_image_tokens"]
        except ValueError as error:  # a picture that is far longer than wide
            raise ValueError(f"prompt {prompt.prompt_id}: {error}") from error
        return len(ids) - len(sizes) + sum(features)

    def save(self, folder: Path) -> None:
        """Write tokenizer, chat template and image processor into a Hugging Face directory."""
        (self._processor or self.tokenizer).save_pretrained(folder)

    def save_with_limits(self, folder: Path) -> None:
        """The same with the limits on pictures in it, for those who load it without knowing of them."""
        if self.processor_options:
            assert self._processor is not None
            self._processor.image_processor.size = self.processor_options["size"]
        self.save(folder)

    def conversation(self, messages: Sequence[Message]) -> list[dict[str, str | Content]]:
        """The messages as chat templates take them."""
        content = _parts if self.takes_images else _plain
        return [{"role": message.role, "content": content(message.text)} for message in messages]

    def _templated(self, messages: Sequence[Message]) -> str:
        template = self._processor or self.tokenizer
        text = template.apply_chat_template(self.conversation(messages), tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text


def too_long(prompt: Prompt, length: int, response_tokens: int, room: int) -> str | None:
    """What to do about a prompt of `length` tokens that leaves a sequence no room for its response; None if it does."""
    if length + response_tokens <= room:
        return None
    smaller = ", or have its pictures scaled down by model.max_image_pixels" if prompt.images else ""
    return (
        f"prompt {prompt.prompt_id} has {length} tokens, its response up to {response_tokens}, but "
        f"engine.tokens_per_sequence is {room}: raise it or shorten one of them{smaller}"
    )


def _check_count(prompt: Prompt, found: int, what: str) -> None:
    if found != len(prompt.images):
        raise ValueError(
            f"prompt {prompt.prompt_id} has {len(prompt.images)} pictures, but {found} {what}: "
            f"mark each picture's place with one {PLACEHOLDER}, and spell out no token that stands for one"
        )


def _plain(text: str) -> Content:
    return text


def _parts(text: str) -> Content:
    parts: list[dict[str, str]] = []
    for position, piece in enumerate(text.split(PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
