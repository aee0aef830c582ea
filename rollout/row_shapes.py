"""The two kinds of rows as they are written, and what is wrong with the form of one.

Chat rows:    {"id", "task"?, "messages": [{"role", "content"}], "images"?, "candidates"?, "reference"?}
VECBench rows: {"id"?, "task", "conversations": [{"from", "value"}], "image" or "images"?, "candidates"?,
               "ground_truth"?}

A content is text with `<image>` at the place of each picture, or a list of parts
{"type": "text", "text"} and {"type": "image"}. A reference is {"label"} or {"counts": {candidate: votes}}
or both. Keys not named here are left alone, but for those of a reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from rollout.prompts import Message
from rollout.rows import PLACEHOLDER, Row

_UNION_STEPS = ("text_content", "parts", "str", "constrained-str", "int", "list[str]")  # not the row's, pydantic's
_SELF_EXPLAINING = ("missing", "value_error")  # the input is the whole object around: no help

_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class RowKind(StrEnum):
    """The kinds of rows; the value is the key that tells them apart."""

    CHAT = "messages"
    VECBENCH = "conversations"


class RowError(ValueError):
    """A row that cannot be read; `faults` says everything that is wrong with its form."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _TextPart(_Shape):
    type: Literal["text"]
    text: str


class _ImagePart(_Shape):
    type: Literal["image"]


def _content_kind(content: object) -> str | None:
    return "text_content" if isinstance(content, str) else "parts" if isinstance(content, list) else None


_Part = Annotated[_TextPart | _ImagePart, Field(discriminator="type")]
_Content = Annotated[
    Annotated[str, Tag("text_content")] | Annotated[list[_Part], Tag("parts")],
    Discriminator(
        _content_kind,
        custom_error_type="content",
        custom_error_message="expected text or a list of parts",
    ),
]


class _Turn(_Shape):
    role: Literal["system", "user", "assistant"]
    content: _Content

    def message(self) -> Message:
        if isinstance(self.content, str):
            return Message(self.role, self.content)
        texts = [PLACEHOLDER if isinstance(part, _ImagePart) else part.text for part in self.content]
        return Message(self.role, "".join(texts))

    @model_validator(mode="after")
    def _no_hidden_placeholder(self) -> _Turn:
        """A placeholder in a text part, or made where two of them meet, would pass for a picture."""
        if isinstance(self.content, list):
            pictures = sum(isinstance(part, _ImagePart) for part in self.content)
            if self.message().text.count(PLACEHOLDER) != pictures:
                raise ValueError(
                    f'got "{PLACEHOLDER}" as text beside image parts: reword the text, or write the whole '
                    f"content as one text with {PLACEHOLDER} at the place of each picture"
                )
        return self


class _Reference(_Shape):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    label: _Name | None = None
    counts: dict[str, Annotated[int, Field(ge=0)]] | None = None


class _ChatRow(_Shape):
    id: _Name
    task: _Name | None = None
    messages: list[_Turn]
    images: list[str] = []
    candidates: list[_Name] = []
    reference: _Reference | None = None

    def row(self, file_name: str, number: int) -> Row:
        reference = self.reference or _Reference()
        return Row(
            row_id=self.id,
            task=self.task or file_name,
            messages=tuple(turn.message() for turn in self.messages),
            images=tuple(self.images),
            candidates=tuple(self.candidates),
            label=reference.label,
            counts=reference.counts,
        )


_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}


class _Utterance(_Shape):
    speaker: Literal["system", "human", "gpt"] = Field(alias="from")
    value: str


class _VecRow(_Shape):
    id: _Name | int | None = None
    task: _Name
    conversations: list[_Utterance]
    image: str | list[str] | None = None
    images: str | list[str] | None = None
    candidates: list[_Name] = []
    ground_truth: _Name | None = None

    @model_validator(mode="after")
    def _one_key_for_pictures(self) -> _VecRow:
        if self.image is not None and self.images is not None:
            raise ValueError("got both `image` and `images`: keep one of them")
        return self

    def row(self, file_name: str, number: int) -> Row:
        pictures = self.image if self.image is not None else self.images or []
        return Row(
            row_id=f"{file_name}:{number}" if self.id is None else str(self.id),
            task=self.task,
            messages=tuple(Message(_ROLES[turn.speaker], turn.value) for turn in self.conversations),
            images=(pictures,) if isinstance(pictures, str) else tuple(pictures),
            candidates=tuple(self.candidates),
            label=self.ground_truth,
            counts=None,
        )


_SHAPES: Mapping[RowKind, type[_ChatRow] | type[_VecRow]] = {
    RowKind.CHAT: _ChatRow,
    RowKind.VECBENCH: _VecRow,
}


def kind_of(written: Mapping[str, object]) -> RowKind | None:
    """Which kind of row an object is, told by its keys; None where it is neither."""
    return next((kind for kind in RowKind if kind.value in written), None)


def read_row(written: Mapping[str, object], kind: RowKind, file_name: str, number: int) -> Row:
    """The row that an object of this kind holds. Raises RowError with all faults of its form.

    The file's name is the task of a row without one; with the row's number it is the id of a row without one.
    """
    try:
        return _SHAPES[kind].model_validate(written).row(file_name, number)
    except ValidationError as error:
        raise RowError([_fault(detail) for detail in error.errors(include_url=False)]) from None


def _fault(detail: ErrorDetails) -> str:
    place = ".".join(str(step) for step in detail["loc"] if step not in _UNION_STEPS)
    what = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    if detail["type"] in _SELF_EXPLAINING:
        return f"{place}: {what}" if place else what
    return f"{place}: {what}, got {shortened(detail['input'])}"


def shortened(value: object) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
