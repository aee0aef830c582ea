"""A data set that Caliber builds itself: whole or not at all, with the settings it was built from beside it.

A set without its settings could not be told from one of another seed: words that this recipe tests on may be
among those that another one trains on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.schema import Response, Section
from rewards.parse import render

ATTRIBUTION = "ATTRIBUTION.txt"  # whose work the set is made from
_SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class BuiltSet:
    """What a recipe's `data.NAME` asks for."""

    name: str  # what it holds
    settings: Section
    response: Response
    write: Callable[[Path], dict[str, int]]  # fills an empty folder; returns how many items each share has

    def build(self, folder: Path) -> str:
        """Write the set into `folder`, whole or not at all; returns in words how many items each share has.

        The same settings give the same bytes. Raises ValueError where the folder exists, where a package is
        missing that the set is made from, or where the settings ask for more than there is.
        """
        if folder.exists():
            raise ValueError(f"{folder} exists: choose another folder or remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            shares = self.write(aside)
            (aside / _SETTINGS).write_text(self._described(), encoding="utf-8")
            os.chmod(aside, 0o755)  # mkdtemp's folder is its owner's alone
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside)
            raise
        return f"{', '.join(f'{number} {name}' for name, number in shares.items())} {self.name}"

    def check(self, folder: Path) -> None:
        """Raises ValueError where what is in `folder` was built from other settings than these."""
        file = folder / _SETTINGS
        if not file.exists() or file.read_text(encoding="utf-8") != self._described():
            raise ValueError(
                f"{folder} was not built from this recipe's settings: remove it to have it built anew, "
                "or name another data.root"
            )

    def _described(self) -> str:
        depends_on = {
            f"data.{self.name}": self.settings.model_dump(),
            "elements": self.response.reasoning_elements,
        }
        return json.dumps(depends_on, indent=1) + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sft_response(texts: Mapping[str, str], elements: Sequence[str], answer: str) -> str:
    """The response of an SFT row: the wanted reasoning elements in their order, and the answer.

    Raises ValueError for an element that `texts` lacks.
    """
    missing = [name for name in elements if name not in texts]
    if missing:
        raise ValueError(
            f"this set has no text for the reasoning elements {missing}; it has {list(texts)}: "
            "change response.reasoning_elements"
        )
    return render({name: texts[name] for name in elements}, answer, None)
