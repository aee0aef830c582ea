"""Prompts that leave no room for a response, refused before any engine starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.digests import training_digest, training_rows
from cluster.pipeline import run_one_stage
from cluster.prompt_lengths import refuse_too_long
from cluster.run_folder import RunFolder
from cluster.stages import read_file
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.chat import ChatFormat, ImageLimits
from rollout.readers import DataError

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
FILES = {
    "stage1": "one",
    "stage2": "two",
    "stage3": "three",
    "seen": "seen",
    "unseen": "unseen",
}  # the question of each
RESPONSE = 48
SMALL = (
    "{vocabulary_size: 320, width: 64, layers: 1, heads: 2, key_value_heads: 1, mlp_width: 64, vision_width: 64, "
    "vision_layers: 1, vision_mlp_width: 64}"
)


def recipe_in(folder: Path, *settings: str, long: str | None = None) -> Recipe:
    """Over files of one row, one of which is long."""
    (folder / "data").mkdir()
    for name, text in FILES.items():
        question = {"role": "user", "content": text * (50 if name == long else 1)}
        answer = {"role": "assistant", "content": "<answer>joy</answer>"}
        row = {"id": name, "messages": [question, answer], "reference": {"label": "joy"}}
        (folder / "data" / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    wanted = [f"output={folder}/run", f"data.root={folder}/data", "data.emoji=null", "rewards.reference=label"]
    return load_recipe(DEMO, [*wanted, *settings])


def model_dir(tiny_model: Path, recipe: Recipe) -> str:
    """Of the run's stage 2."""
    return str(shutil.copytree(tiny_model, RunFolder.of(recipe).stage(2).model))


@pytest.mark.parametrize("long", ["stage2", "stage3", "unseen"])
def test_a_prompt_without_room_for_its_response_is_named_with_the_setting(
    tiny_model: Path, tmp_path: Path, long: str
) -> None:
    recipe = recipe_in(tmp_path, long=long)

    with pytest.raises(DataError) as refused:
        refuse_too_long(recipe, str(tiny_model))

    (problem,) = refused.value.problems
    assert problem.startswith(f"{long}.jsonl: prompt {long} has ")
    assert "its response up to 48, but engine.tokens_per_sequence is 128: raise it" in problem


@pytest.mark.parametrize("long", ["stage1", "stage2"])
def test_rows_that_no_engine_answers_may_have_any_length(tiny_model: Path, tmp_path: Path, long: str) -> None:
    refuse_too_long(recipe_in(tmp_path, "seeding.source=annotators", long=long), str(tiny_model))


def test_the_last_token_that_there_is_room_for_counts(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    chat = ChatFormat(str(tiny_model), ImageLimits())
    longest = max(chat.length(read_file(recipe, f"{name}.jsonl")[0]) for name in ("stage2", "stage3", "unseen"))
    room = longest + RESPONSE

    def with_room(tokens: int) -> Recipe:
        return recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"tokens_per_sequence": tokens})})

    refuse_too_long(with_room(room), str(tiny_model))
    with pytest.raises(DataError, match=f"has {longest} tokens"):
        refuse_too_long(with_room(room - 1), str(tiny_model))


def test_stage_1_takes_its_folder_before_its_starting_model_is_made_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError("no Ray")

    monkeypatch.setattr("cluster.pipeline.connect", fail)
    recipe = recipe_in(tmp_path, f"model.scratch={SMALL}", "engine.tokens_per_sequence=256")
    for _ in range(2):
        with pytest.raises(OSError, match="no Ray"):
            run_one_stage(recipe, 1)
    RunFolder.of(recipe).stage(1).claim(training_digest(recipe, 1), training_rows(recipe, 1))

    assert [path.name for path in (tmp_path / "run").glob("stage*")] == ["stage1"]
    assert (RunFolder.of(recipe).starting_model / "config.json").exists()


def test_stage_3_ends_before_ray_is_joined(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def join(_: str) -> None:
        raise AssertionError("Ray was joined")

    monkeypatch.setattr("cluster.pipeline.connect", join)
    recipe = recipe_in(tmp_path, long="stage3")
    model_dir(tiny_model, recipe)

    with pytest.raises(DataError, match="prompt stage3 has"):
        run_one_stage(recipe, 3)
