"""The programs of README.md and docs/ run, on the code with the changes that their page shows."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.documented import PAGES, ROOT, Block, blocks

PACKAGES = ("cluster", "configs", "learner", "rewards", "rollout")
WITH_PROGRAMS = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
NEEDS_AN_ENGINE = {"predict.md"}  # in its last statement, which `integration/test_predict.py` does by the command


def done(words: list[str], folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, input=text, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, timeout=540
    )


def changed_code(folder: Path, changes: list[Block]) -> None:
    """A copy of the code in a folder, with changes applied one after the other."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        applied = done(["git", "apply", "-"], folder, change.text + "\n")
        assert applied.returncode == 0, f"{applied.stderr}\n{change.text}"


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: page.name)
def test_the_programs_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    changes = [block for block in blocks(page) if block.language == "diff"]
    programs = [block.text for block in blocks(page) if block.language == "python"]
    if page.name in NEEDS_AN_ENGINE:
        programs[-1] = ast.unparse(ast.parse(programs[-1]).body[:-1])
    changed_code(tmp_path, changes)

    ran = done([sys.executable, "-"], tmp_path, "\n\n".join(programs))

    assert ran.returncode == 0, ran.stderr


def test_a_page_shows_a_program_for_each_kind_of_part_that_can_be_added() -> None:
    page = ROOT / "docs" / "extending.md"

    sections = [line.removeprefix("## ") for line in page.read_text(encoding="utf-8").splitlines() if line[:3] == "## "]

    assert sections == ["A scoring rule", "A loss", "A reader", "A transport"]
    assert sum(block.language == "python" for block in blocks(page)) == len(sections)
