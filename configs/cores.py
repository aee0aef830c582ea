"""Lists of processor cores, written as `taskset` writes them: "0-15", "0-3,8"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

_PARTS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")


def core_numbers(text: str) -> frozenset[int]:
    """The cores of a list. Raises ValueError where it is none."""
    wrong = f"got {text!r}, expected numbers and ranges of cores such as 0-15 or 0-3,8"
    if not _PARTS.fullmatch(text):
        raise ValueError(wrong)
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{wrong}; {part} ends before it begins")
        cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def core_list(cores: Iterable[int]) -> str:
    """The shortest list of these cores, in their order."""
    runs: list[list[int]] = []
    for core in sorted(set(cores)):
        if runs and core == runs[-1][-1] + 1:
            runs[-1][1:] = [core]
        else:
            runs.append([core])
    return ",".join("-".join(map(str, run)) for run in runs)


def _is_a_list(text: str) -> str:
    core_numbers(text)
    return text


CoreLists = Annotated[tuple[Annotated[str, AfterValidator(_is_a_list)], ...], Field(min_length=1)]
