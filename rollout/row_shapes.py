"""The kinds of rows as they are written, and what is wrong with the form of one.

    messages       {"messages": [{"role", "content"}]}            chats, LLaMA-Factory's, OpenAI's content parts
    conversations  {"conversations": [{"from", "value"}]}         ShareGPT, LLaMA-Factory's, VECBench
    prompt         {"prompt": text or messages, "response"?}      verl, SkyRL, plain columns
    instruction    {"instruction", "input"?, "output"?, "history"?}   Alpaca, LLaMA-Factory

and in each of them {"id"?, "task"?, "system"?, "images" or "image"?, "candidates"?, and what is known of the truth}:
"reference", or else "ground_truth", or else the one in verl's "reward_model" or in SkyRL's "reward_spec". A reference
is {"label"} or {"counts": {candidate: votes}} or both. A content is text with `<image>` at the place of each picture,
or a list of parts; a prompt or an instruction that is a text without such places has its pictures before it. Keys not
named here are left alone, but for those of a reference.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import (
    BeforeValidator,
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
from rollout.row_kinds import RowKind
from rollout.row_pictures import Picture, Pictures
from rollout.row_turns import Shape, Turn, Utterance
from rollout.rows import PLACEHOLDER, Row, RowError, shortened

# Not the row's but pydantic's: what it calls the members of a union.
_UNION_STEPS = ("text_content", "parts", "text_prompt", "turns", "constrained-str", "int")
_SELF_EXPLAINING = ("missing", "value_error")  # the input is the whole object around: no help

_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _only(written: object) -> object:
    return written[0] if isinstance(written, list) and len(written) == 1 else written


_Truth = Annotated[_Name | int, BeforeValidator(_only)]  # verl's was a list of one in its first versions


class _Reference(Shape):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    label: _Name | int | None = None
    counts: dict[str, Annotated[int, Field(ge=0)]] | None = None


class _Rule(Shape):
    """How verl and SkyRL say what is right; their other keys name reward functions, which are the recipe's here."""

    ground_truth: _Truth | None = None


class _Known(Shape):
    """What rows of every kind may hold beside their turns."""

    id: _Name | int | None = None
    task: _Name | None = None
    data_source: str | None = None
    system: str | None = None
    image: Pictures = ()
    images: Pictures = ()
    videos: list[object] | None = None
    audios: list[object] | None = None
    candidates: tuple[_Name, ...] = Field(default=(), strict=False)
    reference: _Reference | None = None
    ground_truth: _Truth | None = None
    reward_model: _Rule | None = None
    reward_spec: _Rule | None = None

    @abstractmethod
    def turns(self) -> tuple[Message, ...]:
        """The messages, the response among them."""

    def brought(self) -> tuple[Picture, ...]:
        """Pictures that stand in the turns themselves."""
        return ()

    def row(self, file_name: str, number: int) -> Row:
        """The row in its one form."""
        reference = self.reference or _Reference()
        system = (Message("system", self.system),) if self.system else ()
        return Row(
            row_id=f"{file_name}:{number}" if self.id is None else str(self.id),
            task=self.task or self.data_source or file_name,
            messages=(*system, *self.turns()),
            images=self.image or self.images or self.brought(),
            candidates=self.candidates,
            label=self._label(reference),
            counts=reference.counts,
        )

    def placed(self, question: str) -> str:
        """A question in text with its pictures before it, where it has no places for them."""
        return question if PLACEHOLDER in question else PLACEHOLDER * len(self.image or self.images) + question

    def _label(self, reference: _Reference) -> str | None:
        rules = [rule.ground_truth for rule in (self.reward_model, self.reward_spec) if rule is not None]
        given = [reference.label, *([] if reference.counts else [self.ground_truth, *rules])]
        truth = next((label for label in given if label is not None), None)
        return None if truth is None else str(truth)

    @model_validator(mode="after")
    def _can_be_shown(self) -> _Known:
        places = {"`image`": self.image, "`images`": self.images, "the content's parts": self.brought()}
        used = [name for name, pictures in places.items() if pictures]
        if len(used) > 1:
            raise ValueError(f"got pictures in both {' and '.join(used)}: keep one of them")
        if self.videos or self.audios:
            raise ValueError("got videos or audios, and models are shown text and pictures alone: leave the row out")
        return self


class _MessagesRow(_Known):
    messages: list[Turn]

    def turns(self) -> tuple[Message, ...]:
        return tuple(turn.message() for turn in self.messages)

    def brought(self) -> tuple[Picture, ...]:
        return tuple(picture for turn in self.messages for picture in turn.pictures())


class _ConversationsRow(_Known):
    conversations: list[Utterance]

    def turns(self) -> tuple[Message, ...]:
        return tuple(turn.message() for turn in self.conversations)


class _PromptRow(_Known):
    prompt: Annotated[
        Annotated[str, Tag("text_prompt")] | Annotated[list[Turn], Tag("turns")],
        Discriminator(lambda written: "text_prompt" if isinstance(written, str) else "turns"),
    ]
    response: str | None = None

    def turns(self) -> tuple[Message, ...]:
        response = () if self.response is None else (Message("assistant", self.response),)
        return (*(turn.message() for turn in self._prompt()), *response)

    def brought(self) -> tuple[Picture, ...]:
        return tuple(picture for turn in self._prompt() for picture in turn.pictures())

    def _prompt(self) -> list[Turn]:
        if not isinstance(self.prompt, str):
            return self.prompt
        return [Turn(role="user", content=self.placed(self.prompt))]


class _InstructionRow(_Known):
    instruction: str
    input: str | None = None  # what the instruction is about, in a line of its own
    output: str | None = None
    history: list[Annotated[tuple[str, str], Field(strict=False)]] | None = None  # questions and answers before it

    def turns(self) -> tuple[Message, ...]:
        said = [text for pair in self.history or () for text in pair]
        asked = f"{self.instruction}\n{self.input}" if self.input else self.instruction
        texts = [*said, asked if PLACEHOLDER in "".join(said) else self.placed(asked), *filter(None, [self.output])]
        roles = itertools.cycle(("user", "assistant"))
        return tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))


_SHAPES: Mapping[RowKind, type[_Known]] = {
    RowKind.MESSAGES: _MessagesRow,
    RowKind.CONVERSATIONS: _ConversationsRow,
    RowKind.PROMPT: _PromptRow,
    RowKind.INSTRUCTION: _InstructionRow,
}


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
