"""A row of a data file in the one form that both kinds of rows are brought into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.prompts import Message

PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of either kind. Its form is right; whether it makes sense is not looked at."""

    row_id: str
    task: str
    messages: tuple[Message, ...]
    images: tuple[str, ...]  # as written
    candidates: tuple[str, ...]
    label: str | None
    counts: Mapping[str, int] | None  # None: no counts

    @property
    def response(self) -> str | None:
        """The text of the last message, where that is the assistant's."""
        last = self.messages[-1] if self.messages else None
        return last.text if last is not None and last.role == "assistant" else None

    @property
    def question(self) -> tuple[Message, ...]:
        """The messages before the response."""
        return self.messages if self.response is None else self.messages[:-1]
