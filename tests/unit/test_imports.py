"""Who may import what, read from the syntax trees: imports inside functions count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Our modules that a folder may import beside its own; a name stands for all that is below it.
OURS: Mapping[str, Sequence[str]] = {
    "configs": (),
    "rewards": ("configs",),
    "rollout": ("configs", "rewards"),
    "learner": (
        "configs",
        "rewards.mixing",
        "rollout.chat",
        "rollout.codec",
        "rollout.probe",
        "rollout.prompts",
        "rollout.trajectory",
    ),
    "cluster": ("configs", "rewards", "rollout", "learner"),
}
FOLDERS = frozenset({*OURS, "tests", "benchmarks"})
# Libraries that one folder keeps to itself.
OWNERS: Mapping[str, str] = {"ray": "cluster", "wandb": "cluster", "vllm": "rollout", "deepspeed": "learner"}
# Files and folders that may import these libraries and no others.
ONLY: Mapping[str, Sequence[str]] = {
    "configs": ("yaml", "pydantic"),
    "rewards": ("numpy",),
    "rewards/abstention.py": ("numpy", "scipy"),
    "rewards/bins.py": ("numpy", "scipy", "sklearn"),
    "rewards/bootstrap.py": ("numpy", "scipy"),
    "rewards/metrics.py": ("numpy", "scipy", "sklearn"),
    "rewards/recalibration.py": ("numpy", "scipy", "sklearn"),
    "rewards/released/evaluator.py": ("numpy", "sklearn"),
    "rewards/selective.py": ("numpy", "scipy"),
    "rewards/smooth_ece.py": ("numpy", "scipy"),
}
# Runs before anything is installed, or looks at the installation.
EXEMPT = ("cluster/setup",)


def violations(root: Path) -> list[str]:
    """Imports against the rules in the folders under `root`, as `file:line: what is wrong`."""
    return [
        f"{path.relative_to(root).as_posix()}:{line}: {complaint}"
        for folder in OURS
        for path in sorted((root / folder).rglob("*.py"))
        if not _is_under(path.relative_to(root), EXEMPT)
        for line, name in imports(path, root)
        if (complaint := _complaint(path.relative_to(root), name))
    ]


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a file imports, by statement or by literal name."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package[: len(package) - level + 1] if level else ()
                parts = [*above, *([module] if module else [])]
                yield from ((node.lineno, ".".join([*parts, alias.name])) for alias in names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _imports(function):
                yield node.lineno, name


def _imports(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _complaint(path: Path, name: str) -> str | None:
    folder, top = path.parts[0], name.split(".")[0]
    if top in FOLDERS:
        allowed = (folder, *OURS[folder])
        below = any(name == module or name.startswith(f"{module}.") for module in allowed)
        return None if below else f"{folder} may not import {name}, only {', '.join(allowed)}"
    if OWNERS.get(top, folder) != folder:
        return f"only {OWNERS[top]} may import {top}"
    libraries = ONLY.get(path.as_posix(), ONLY.get(folder))
    if libraries is not None and top not in libraries and top not in sys.stdlib_module_names:
        return f"{folder} may import {', '.join(libraries)} and not {top}"
    return None


def _is_under(path: Path, folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


# --- the repository


def test_nobody_imports_what_is_not_theirs() -> None:
    assert violations(ROOT) == []


def test_the_rules_know_every_folder_with_code() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert folders - FOLDERS == set()
    assert set(OURS) <= folders


def test_what_runs_in_trls_environment_imports_what_is_there_and_nothing_of_ours() -> None:
    found = {name.split(".")[0] for _, name in imports(ROOT / "benchmarks" / "trl_side.py", ROOT)}

    assert found - sys.stdlib_module_names == {"datasets", "torch", "transformers", "trl"}


# --- the checker, on planted trees


def plant(root: Path, file: str, code: str) -> list[str]:
    """The violations of a tree of one file, without the file's name."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return [found.removeprefix(f"{file}:") for found in violations(root)]


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        ("configs/a.py", "import rewards.mixing", "1: configs may not import rewards.mixing, only configs"),
        ("configs/a.py", "import numpy", "1: configs may import yaml, pydantic and not numpy"),
        (
            "rewards/a.py",
            "from rollout import codec",
            "1: rewards may not import rollout.codec, only rewards, conf",
        ),
        ("rewards/a.py", "import torch", "1: rewards may import numpy and not torch"),
        ("rewards/a.py", "import transformers.utils", "1: rewards may import numpy and not transformers"),
        ("rewards/a.py", "import scipy", "1: rewards may import numpy and not scipy"),
        ("rewards/metrics.py", "import torch", "1: rewards may import numpy, scipy, sklearn and not torch"),
        ("rollout/a.py", "import learner.losses", "1: rollout may not import learner.losses"),
        ("rollout/a.py", "import ray", "1: only cluster may import ray"),
        ("rollout/a.py", "\nimport ray.util as r", "2: only cluster may import ray"),
        ("rollout/a.py", "import deepspeed", "1: only learner may import deepspeed"),
        ("rollout/a.py", "from tests import x", "1: rollout may not import tests.x"),
        ("learner/a.py", "import rollout", "1: learner may not import rollout, only"),
        ("learner/a.py", "from rollout import worker", "1: learner may not import rollout.worker"),
        ("learner/a.py", "from rollout import *", "1: learner may not import rollout.*"),
        (
            "learner/a.py",
            "from rollout.promptsmith import x",
            "1: learner may not import rollout.promptsmith.x",
        ),
        (
            "learner/a.py",
            "from rewards.scoring import brier",
            "1: learner may not import rewards.scoring.brier",
        ),
        ("learner/a.py", "from cluster import cli", "1: learner may not import cluster.cli"),
        ("learner/a.py", "def f():\n    from vllm import LLM", "2: only rollout may import vllm"),
        ("learner/a.py", "if TYPE_CHECKING:\n    import wandb", "2: only cluster may import wandb"),
        ("learner/a.py", "from ..rollout import worker", "1: learner may not import rollout.worker"),
        ("learner/a.py", "importlib.import_module('vllm.x')", "1: only rollout may import vllm"),
        ("learner/a.py", "__import__('ray')", "1: only cluster may import ray"),
        ("cluster/a.py", "import vllm", "1: only rollout may import vllm"),
        ("cluster/deep/a.py", "from deepspeed.comm import x", "1: only learner may import deepspeed"),
        ("cluster/setups.py", "import deepspeed", "1: only learner may import deepspeed"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, code: str, complaint: str) -> None:
    (found,) = plant(tmp_path, file, code)

    assert found.startswith(complaint)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("configs/a.py", "import os, yaml\nfrom pydantic.fields import FieldInfo\nfrom configs import b"),
        ("configs/a.py", "from . import b\nfrom .b import c"),
        ("rewards/a.py", "import numpy.typing\nfrom configs.schema import Rewards"),
        ("rewards/metrics.py", "import scipy.stats\nfrom sklearn import metrics"),
        ("rollout/a.py", "import torch, vllm\nfrom rewards import parse"),
        ("learner/a.py", "import deepspeed, rollout.codec\nfrom rollout import chat, prompts, trajectory"),
        ("learner/a.py", "from rewards.mixing import combine\nfrom learner.losses import loss"),
        ("cluster/a.py", "import ray, wandb, learner.rl, rollout.vllm_engine"),
        ("cluster/setup/a.py", "import vllm, deepspeed"),
        ("tests/a.py", "import vllm, deepspeed, ray, cluster"),
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, file: str, code: str) -> None:
    assert plant(tmp_path, file, code) == []


def test_every_violation_of_a_file_is_found(tmp_path: Path) -> None:
    found = plant(tmp_path, "learner/a.py", "import ray, vllm\nimport cluster\n")

    assert [complaint.split(":")[0] for complaint in found] == ["1", "1", "2"]
