"""A row of a data file in the one form that every format is brought into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.prompts import Message

PLACEHOLDER = "<image>"


class RowError(ValueError):
    """A row that cannot be read; `faults` says everything that is wrong with its form."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class UnreadableFile(ValueError):
    """A file or folder that no rows, or no more, can be read from."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of any format. Its form is right; whether it makes sense is not looked at."""

    row_id: str
    task: str
    messages: tuple[Message, ...]
    images: tuple[str | bytes, ...]  # paths as written, or encoded pictures
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


def shortened(value: object) -> str:
    """A value as an error message shows it."""
    text = repr(value[:60] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
