"""The command that begins: `init`."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from cluster.cli_parts import command
from cluster.starter import OWN, SCRATCH, Answers, refuse_full, write_starter
from configs.choices import Correctness, Reference

_RIGHT = [OWN, *(str(how) for how in Correctness if how is not Correctness.JUDGE)]


def add_init_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    init = command(
        commands,
        "init",
        _init,
        "write a recipe, a scorer of your own and its test into a folder; asks what it is not told",
    )
    init.add_argument("folder", type=Path, help="folder to write, which must be new or empty")
    init.add_argument("--name", help="of the recipe (default: the folder's)")
    init.add_argument("--model", help="Hugging Face directory or hub id, or scratch: a small one from random weights")
    init.add_argument("--data", help="folder of the rows and pictures")
    init.add_argument("--correctness", choices=_RIGHT, help="what says whether an answer is right; own: scorer.py")
    init.add_argument("--reference", choices=list(Reference), help="what answers are held against")
    init.add_argument("--gpus", type=int, help="0: two CPU cores")


def _init(options: argparse.Namespace) -> int:
    refuse_full(options.folder)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", options.folder.absolute().name).strip("-") or "recipe"
    answers = Answers(
        name=_told(options.name, "Name of the recipe", name),
        model=_told(
            options.model,
            "Model: a Hugging Face directory or hub id, or scratch for a small one from random weights",
            SCRATCH,
        ),
        data=_told(options.data, "Folder of the rows and pictures", "data"),
        correctness=_told(options.correctness, "What says whether an answer is right", OWN, _RIGHT),
        reference=Reference(_told(options.reference, "What answers are held against", "label", list(Reference))),
        gpus=_told_number(options.gpus, "GPUs (0: two CPU cores)", 0),
    )
    for file in write_starter(options.folder, answers):
        print(f"wrote {file}")
    print(f"next: cd {shlex.quote(str(options.folder))} && caliber check recipe.yaml && python -m pytest")
    return 0


def _told(flag: str | None, question: str, default: str, choices: list[str] | None = None) -> str:
    """What a flag says, or else whoever sits at the terminal; the default where nobody does."""
    if flag is not None or not sys.stdin.isatty():
        return default if flag is None else flag
    from rich.prompt import Prompt

    return Prompt.ask(question, default=default, choices=choices)


def _told_number(flag: int | None, question: str, default: int) -> int:
    if flag is not None or not sys.stdin.isatty():
        return default if flag is None else flag
    from rich.prompt import IntPrompt

    return IntPrompt.ask(question, default=default)
