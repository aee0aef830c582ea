"""Where the model comes from."""

from __future__ import annotations

from pydantic import model_validator

from configs.section import PositiveInt, Section


class ScratchModel(Section):
    """A small Qwen2.5-VL built from random weights, with a tokenizer trained on the recipe's data."""

    vocabulary_size: PositiveInt = 1024
    """Tokens of the tokenizer at most, special ones included; a small corpus may need fewer."""
    width: PositiveInt = 192
    """Hidden size of the text model."""
    layers: PositiveInt = 4
    """Layers of the text model."""
    heads: PositiveInt = 4
    """Attention heads of the text model; the head size is width / heads."""
    key_value_heads: PositiveInt = 2
    """Key-value heads of the text model."""
    mlp_width: PositiveInt = 512
    """Hidden size of the text model's MLPs."""
    vision_width: PositiveInt = 192
    """Hidden size of the vision tower."""
    vision_layers: PositiveInt = 4
    """Layers of the vision tower."""
    vision_heads: PositiveInt = 4
    """Attention heads of the vision tower."""
    vision_mlp_width: PositiveInt = 768
    """Hidden size of the vision tower's MLPs."""


class GgufModel(Section):
    """A pretrained model in a GGUF file, unpacked once into a Hugging Face directory."""

    file: str
    """The file, relative to where the command is given; of a package, the pattern that one of its files matches."""
    package: str | None = None
    """Installed Python package that holds the file; it is found and not imported."""

    @model_validator(mode="after")
    def _within_its_package(self) -> GgufModel:
        if self.package is not None and self.file.startswith("/"):
            raise ValueError(f"{self.file} is looked for in the package {self.package}: set package to null")
        return self


class Model(Section):
    """The model the pipeline starts from: exactly one of `path`, `scratch` and `gguf`."""

    path: str | None = None
    """Hugging Face directory (or hub id) to start from."""
    scratch: ScratchModel | None = None
    """Build a small model from random weights instead."""
    gguf: GgufModel | None = None
    """Unpack a GGUF file instead."""
    min_image_pixels: PositiveInt | None = None
    """Lower limit the image processor scales pictures up to, pixels; the model's own if not set."""
    max_image_pixels: PositiveInt | None = None
    """Upper limit the image processor scales pictures down to, pixels; the model's own if not set."""

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Model:
        if sum(source is not None for source in (self.path, self.scratch, self.gguf)) != 1:
            raise ValueError("give exactly one of model.path, model.scratch and model.gguf")
        return self
