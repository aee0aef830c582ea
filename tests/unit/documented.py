"""What README.md, CONTRIBUTING.md and the pages of docs/ show: commands, programs, changes, recipes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("caliber", "make", "python", "pip", "ray", "wandb", "mkdocs")
SHELL = ("", "sh", "bash", "console")
# What stands in a page for something of the reader's.
STANDS_FOR = {
    "RECIPE": "my-recipe.yaml",
    "RUN": "outputs/emoji",
    "OUT": "new-set",
    "DIR": "new-folder",
    "DEST": "new-model",
    "MODEL": "outputs/emoji/stage2/model",
    "DATA": "data.jsonl",
    "PREDICTIONS": "outputs/emoji/stage3/evaluation/seen/predictions.jsonl",
    "ROWS": "outputs/emoji/stage3/evaluation/seen/predictions.jsonl",
    "…/predictions.jsonl": "outputs/emoji/stage3/evaluation/seen/predictions.jsonl",
    "…": "outputs/emoji/stage2/evaluation/seen/predictions.jsonl",
    "PRESET": "default",
    "N": "3",
}

_FENCE = re.compile(r"^```(\w*)\s*$")
_SPAN = re.compile(r"`([^`]+)`")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a page shows it."""

    page: str
    words: tuple[str, ...]  # the program's own name first, without its folder
    alone: bool  # on a line of its own, and not within a sentence

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def filled(self) -> list[str]:
        """The words behind the program, with something for what stands for it; what may be left out is."""
        words = [STANDS_FOR.get(word, word) for word in self.words[1:] if not word.startswith("[")]
        return [re.sub(r"^(\w[\w.]*)=S$", r"\1=0", word) for word in words]


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that stand apart."""

    language: str  # "" of those that are indented, and where none is said
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, fenced or indented by four, in order."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    before, indented = "", list[str]()
    for line in lines:
        if line.startswith("    ") and (indented or not before.strip()):
            indented.append(line[4:])
            continue
        if indented:
            yield Block("", "\n".join(indented))
            indented = []
        if opened := _FENCE.match(line):
            inner: list[str] = []
            while (line := next(lines)) != "```":
                inner.append(line)
            yield Block(opened[1], "\n".join(inner))
        before = line
    if indented:
        yield Block("", "\n".join(indented))


def commands(page: Path) -> list[Command]:
    """The commands of a page, each once."""
    apart = [line for block in blocks(page) if block.language in SHELL for line in _joined(block.text)]
    # The language of a fence does not matter here: what is fenced is no sentence.
    within = _SPAN.findall(re.sub(r"(?s)^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    found = [_command(page, line, alone=True) for line in apart] + [_command(page, one, alone=False) for one in within]
    return list(dict.fromkeys(command for command in found if command is not None))


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def _command(page: Path, line: str, *, alone: bool) -> Command | None:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # half a quotation: no command
        return None
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    words = words[: words.index("|")] if "|" in words else words  # what comes behind a pipe is not ours
    if not words or (name := words[0].removeprefix(".venv/bin/")) not in PROGRAMS or (not alone and len(words) == 1):
        return None
    return Command(page.name, (name, *words[1:]), alone)


SHOWN = [command for page in PAGES for command in commands(page)]
