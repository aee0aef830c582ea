"""The turns of a conversation as formats write them: role and content, or from and value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from rollout.prompts import Message
from rollout.row_pictures import Picture, picture
from rollout.rows import PLACEHOLDER, shortened


class Shape(BaseModel):
    """An object of a row; keys that it does not name are left alone."""

    model_config = ConfigDict(frozen=True, strict=True)


_Picture = Annotated[Picture, BeforeValidator(picture)]


class _TextPart(Shape):
    type: Literal["text"]
    text: str


class _ImagePart(Shape):
    """The place of the row's next picture, or the picture itself."""

    type: Literal["image"]
    image: _Picture | None = None

    @property
    def own(self) -> Picture | None:
        return self.image


class _Address(Shape):
    url: _Picture


class _ImageUrlPart(Shape):
    """OpenAI's."""

    type: Literal["image_url"]
    image_url: _Address

    @property
    def own(self) -> Picture | None:
        return self.image_url.url


def _content_kind(content: object) -> str | None:
    return "text_content" if isinstance(content, str) else "parts" if isinstance(content, list) else None


_Part = Annotated[_TextPart | _ImagePart | _ImageUrlPart, Field(discriminator="type")]
_Content = Annotated[
    Annotated[str, Tag("text_content")] | Annotated[list[_Part], Tag("parts")],
    Discriminator(
        _content_kind,
        custom_error_type="content",
        custom_error_message="expected text or a list of parts",
    ),
]


class Turn(Shape):
    """A message with its role."""

    role: Literal["system", "user", "assistant"]
    content: _Content

    def message(self) -> Message:
        """The turn with a placeholder for each picture."""
        if isinstance(self.content, str):
            return Message(self.role, self.content)
        texts = [part.text if isinstance(part, _TextPart) else PLACEHOLDER for part in self.content]
        return Message(self.role, "".join(texts))

    def pictures(self) -> tuple[Picture, ...]:
        """Those that its parts bring with them."""
        parts = [] if isinstance(self.content, str) else self.content
        brought = [part.own for part in parts if not isinstance(part, _TextPart)]
        return tuple(own for own in brought if own is not None)

    @model_validator(mode="after")
    def _no_hidden_placeholder(self) -> Turn:
        """A placeholder in a text part, or made where two of them meet, would pass for a picture."""
        if isinstance(self.content, list):
            pictures = sum(not isinstance(part, _TextPart) for part in self.content)
            if self.message().text.count(PLACEHOLDER) != pictures:
                raise ValueError(
                    f'got "{PLACEHOLDER}" as text beside image parts: reword the text, or write the whole '
                    f"content as one text with {PLACEHOLDER} at the place of each picture"
                )
        return self


# LLaMA-Factory's sets have the names of `role`, too, where their `dataset_info.json` says so.
_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def _role(tag: object) -> str:
    role = _ROLES.get(tag) if isinstance(tag, str) else None
    if role is None:
        raise ValueError(
            f"got {shortened(tag)}, expected one of {', '.join(_ROLES)}: rename it in the file; a conversation with "
            "tools must be left out"
        )
    return role


class Utterance(Shape):
    """ShareGPT's turn."""

    role: Annotated[str, BeforeValidator(_role)] = Field(alias="from")
    value: str

    def message(self) -> Message:
        """The turn with its role."""
        return Message(self.role, self.value)
