"""Exports of a tiny vision-language model, by the real transformers and the real vLLM in processes of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cluster import export_check
from cluster.cli import main
from cluster.export import Form, export
from cluster.export_check import Checked, ExportDiffers, Question, check_export
from cluster.export_source import Source
from cluster.run_folder import RunFolder
from configs.schema import Engine, Recipe
from learner.adapter_files import Adapter
from rollout.chat import ChatFormat
from tests.integration.card_code import LIBRARIES, printed
from tests.unit.finished_run import finished_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

DIFFERENCES = r"transformers .*: text (\S+), picture (\S+) .*\nvLLM .*: text (\S+), picture (\S+) "


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Recipe:
    return finished_run(tmp_path_factory.mktemp("export"), tiny_model, "learner.lora={rank: 2, alpha: 3}")


@pytest.mark.parametrize("form", list(Form))
def test_an_export_says_in_both_libraries_what_its_model_says_of_text_and_picture(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    assert main(["export", recipe.output, str(tmp_path / "out"), "--form", form, "--trace"]) == 0

    told = re.search(DIFFERENCES, capsys.readouterr().out)
    assert told is not None
    by_transformers, by_vllm = [float(found) for found in told.groups()[:2]], map(float, told.groups()[2:])
    assert max(by_transformers) <= 1e-4
    assert max(by_vllm) <= 1e-3
    assert "vLLM 0.32" in (tmp_path / "out" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_code_on_an_adapters_card_runs_as_it_stands(recipe: Recipe, tmp_path: Path, library: str) -> None:
    folder, base = tmp_path / "out", RunFolder.of(recipe).starting_model
    assert main(["export", recipe.output, str(folder), "--form", "adapter"]) == 0
    picture = next(Path(recipe.data.root).glob("*.png"))

    named = {"FOLDER": str(folder), "BASE": str(base), "RANK": "8"}
    told = printed(folder / "README.md", library, "'said', type(response).__name__", named, picture)

    assert "said str" in told.splitlines()  # of bytes that are no text: it has learnt nothing


@pytest.mark.parametrize("library", ["transformers", "vLLM"])
def test_an_export_with_other_weights_is_refused_by_each_of_them(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    if library == "vLLM":
        monkeypatch.setattr(export_check, "TRANSFORMERS_TOLERANCE", math.inf)

    with pytest.raises(ExportDiffers, match=rf"something else than its model. {library} .*: text .*, picture"):
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, with_a_weight_changed)

    assert not (tmp_path / "out").exists()


def test_an_export_that_scales_pictures_otherwise_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ExportDiffers, match="transformers reads the picture prompt as other tokens"):
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, with_other_limits)


def with_a_weight_changed(
    folder: Path, kind: str, chat: ChatFormat, asked: Sequence[Question], engine: Engine, adapter: Adapter | None
) -> list[Checked]:
    weights = load_file(folder / "model.safetensors")
    changed = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight") and "visual" not in name)
    weights[changed][3] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return check_export(folder, kind, chat, asked, engine, adapter)


def with_other_limits(
    folder: Path, kind: str, chat: ChatFormat, asked: Sequence[Question], engine: Engine, adapter: Adapter | None
) -> list[Checked]:
    file = folder / "processor_config.json"
    file.write_text(file.read_text().replace("7056", "70560"))
    return check_export(folder, kind, chat, asked, engine, adapter)
