"""A prompt with its reference: what a row of data becomes, whichever reader read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: text with `<image>` at the place of each picture."""

    role: str  # system, user or assistant
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question, what it may be answered with, and what is known of the truth."""

    prompt_id: str  # unique in its file
    task: str
    messages: tuple[Message, ...]  # ends with the user's turn
    images: tuple[str, ...] = ()  # absolute paths, one for each <image> in order
    candidates: tuple[str, ...] = ()  # () where any answer is allowed
    label: str | None = None  # the right answer; the most frequent one where there are counts
    counts: Mapping[str, int] = field(default_factory=dict)  # annotators' votes by candidate
    response: str | None = None  # what SFT trains on: reasoning and answer, and confidence in stage 2
