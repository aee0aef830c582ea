"""What docs/security.md promises of code that would be run, and of secrets; its table names the tests of the rest."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cluster.run_log import Column, RunLog
from configs.load import load_recipe, write_resolved
from configs.schema import Learner, Precision
from learner.architecture import size_of
from learner.policy import load_model
from rollout.chat import ChatFormat, ImageLimits

ROOT = Path(__file__).parents[2]
FOLDERS = ("cluster", "configs", "learner", "rewards", "rollout")
UNPICKLING = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle")


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Every syntax node of ours, with its file."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield path.relative_to(ROOT), node


def keywords(call: ast.Call) -> dict[str | None, object]:
    return {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}


# --- nothing that came from outside is run


def test_nothing_of_ours_unpickles_or_evaluates() -> None:
    found = []
    for path, node in nodes():
        match node:
            case ast.Import(names=names) if any(name.name.split(".")[0] in UNPICKLING for name in names):
                found.append((path, node.lineno))
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLING:
                found.append((path, node.lineno))
            case ast.Call(func=ast.Name(id="eval" | "exec")):
                found.append((path, node.lineno))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                if keywords(node).get("weights_only") is not True:
                    found.append((path, node.lineno))
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append((path, node.lineno))

    assert found == []


def test_every_model_is_loaded_without_trust_in_its_code() -> None:
    calls = [
        (path, node.lineno, keywords(node).get("trust_remote_code"))
        for path, node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
    ]

    assert len(calls) > 5
    assert [call for call in calls if call[2] is not False] == []


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: size_of(folder, None),
        lambda folder: load_model(str(folder), Learner()),
        lambda folder: ChatFormat(str(folder), ImageLimits(None, None, 1)),
    ],
    ids=["size_of", "load_model", "ChatFormat"],
)
def test_a_model_that_brings_its_own_code_is_refused_and_the_code_not_run(
    tiny_model: Path, tmp_path: Path, load: Callable[[Path], object]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "its_own", "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Own: pass\n")

    with pytest.raises(ValueError, match="custom code"):
        load(folder)
    assert not (tmp_path / "ran").exists()


class RunsWhenUnpickled:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._file),)


def test_weights_in_a_pickle_are_read_as_weights_or_not_at_all(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"lm_head.weight": RunsWhenUnpickled(tmp_path / "ran")}, folder / "pytorch_model.bin")

    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_model(str(folder), Learner(precision=Precision.FP32))
    assert not (tmp_path / "ran").exists()


# --- secrets stay where they are

SECRETS = {
    "WANDB_API_KEY": "a1b2c3d4e5" * 4,
    "HF_TOKEN": "hf_" + "Zz9Yy8Xx7W" * 3,
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "JUDGE_TOKEN": "the-judge-knows-me",
}


def test_no_secret_of_the_environment_comes_into_the_run_s_folder_or_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "elsewhere"))
    recipe = load_recipe(
        ROOT / "configs" / "emoji" / "demo.yaml",
        [
            "wandb.mode=offline",
            "rewards.correctness=judge",
            "rewards.judge={url: 'https://judge.example/score', token_variable: JUDGE_TOKEN}",
        ],
    )

    write_resolved(recipe, tmp_path / "run" / "recipe.yaml")
    with RunLog(tmp_path / "run" / "stage3", "stage3", [Column("reward", "reward", 3)], recipe) as log:
        log.log({"reward": 0.5}, 1)

    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"recipe.yaml", "log.jsonl", "debug.log"} <= {path.name for path in files}  # wandb's own log among them
    written = {str(path): path.read_bytes() for path in files} | {"output": "".join(capfd.readouterr()).encode()}
    assert [(place, name) for place, text in written.items() for name, s in SECRETS.items() if s.encode() in text] == []
