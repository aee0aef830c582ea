from __future__ import annotations

from pathlib import Path

import pytest

from cluster.finished_model import finished_model
from configs.load import load_recipe, write_resolved

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def recipe(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_resolved(load_recipe(DEMO, [f"name={name}"]), folder / "recipe.yaml")
    return folder / "recipe.yaml"


def test_of_a_run_it_is_stage_3s_with_the_runs_recipe(tmp_path: Path) -> None:
    recipe(tmp_path, "run")
    model(tmp_path / "stage2" / "model")
    last = model(tmp_path / "stage3" / "model")

    found, its_recipe = finished_model(tmp_path)

    assert (found, its_recipe.name) == (last, "run")


def test_a_stages_model_has_its_runs_recipe_and_overrides_go_over_it(tmp_path: Path) -> None:
    recipe(tmp_path, "run")
    second = model(tmp_path / "stage2" / "model")

    found, its_recipe = finished_model(second, overrides=["engine.workers=3"])

    assert (found, its_recipe.name, its_recipe.engine.workers) == (second, "run", 3)


def test_a_recipe_in_the_models_own_directory_goes_before_the_runs(tmp_path: Path) -> None:
    recipe(tmp_path, "run")
    alone = model(tmp_path / "a" / "b")
    recipe(alone, "own")

    assert finished_model(alone)[1].name == "own"


def test_a_recipe_that_is_named_goes_before_both(tmp_path: Path) -> None:
    alone = model(tmp_path / "a" / "b")
    recipe(alone, "own")

    assert finished_model(alone, recipe(tmp_path / "elsewhere", "named"))[1].name == "named"


def test_a_run_that_has_not_ended_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    recipe(tmp_path, "run")
    model(tmp_path / "stage2" / "model")

    with pytest.raises(FileNotFoundError, match=r"stage 3 has ended, with stage3/model: give .* stage2/model"):
        finished_model(tmp_path)


def test_a_model_without_a_recipe_is_refused_with_the_places_that_were_looked_at(tmp_path: Path) -> None:
    alone = model(tmp_path / "a" / "b")

    with pytest.raises(FileNotFoundError) as refused:
        finished_model(alone)

    assert f"{alone / 'recipe.yaml'} and {tmp_path / 'recipe.yaml'}: no such file" in str(refused.value)
    assert "--recipe" in str(refused.value)


def test_a_model_may_lie_right_under_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = recipe(tmp_path, "named")
    monkeypatch.setattr(Path, "exists", lambda path: path in {Path("/model/config.json"), named})

    found, its_recipe = finished_model(Path("/model"), named)

    assert (found, its_recipe.name) == (Path("/model"), "named")
