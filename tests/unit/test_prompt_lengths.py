"""Prompts that leave no room for a response, refused before any model loads."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cluster.digests import training_digest, training_rows
from cluster.pipeline import run_one_stage, run_pipeline
from cluster.prompt_lengths import PromptLengths, refuse_too_long
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
    (folder / "data").mkdir(parents=True)
    for name, text in FILES.items():
        question = {"role": "user", "content": text * (50 if name == long else 1)}
        answer = {"role": "assistant", "content": "<answer>joy</answer>"}
        row = {"id": name, "messages": [question, answer], "reference": {"label": "joy"}}
        (folder / "data" / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    wanted = [f"output={folder}/run", f"data.root={folder}/data", "data.emoji=null", "rewards.reference=label"]
    return load_recipe(DEMO, [*wanted, *settings])


def refuse(recipe: Recipe, model_dir: Path, *stages: int, evaluated: bool = True) -> None:
    refuse_too_long(str(model_dir), recipe, stages or (1, 2, 3), evaluated)


@pytest.mark.parametrize("long", ["stage2", "stage3", "unseen"])
def test_a_prompt_without_room_for_its_response_is_named_with_the_setting(
    tiny_model: Path, tmp_path: Path, long: str
) -> None:
    recipe = recipe_in(tmp_path, long=long)

    with pytest.raises(DataError) as refused:
        refuse(recipe, tiny_model)

    (problem,) = refused.value.problems
    assert problem.startswith(f"{long}.jsonl: prompt {long} has ")
    remedy = "raise it or shorten one of them"  # and nothing of pictures: it has none
    assert problem.endswith(f"its response up to 48, but engine.tokens_per_sequence is 128: {remedy}")


def test_a_picture_without_room_is_answered_with_the_setting_that_scales_it_down(
    tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_in(tmp_path)
    Image.new("RGB", (640, 480)).save(tmp_path / "data" / "1.jpg")
    row = {"id": "1", "prompt": "?", "image": "1.jpg", "reference": {"label": "joy"}}
    (tmp_path / "data" / "stage3.jsonl").write_text(json.dumps(row), encoding="utf-8")

    with pytest.raises(DataError) as refused:
        refuse(recipe, tiny_model, 3, evaluated=False)

    (problem,) = refused.value.problems
    assert problem.endswith("or shorten one of them, or have its pictures scaled down by model.max_image_pixels")
    smaller = recipe.model.model_copy(update={"max_image_pixels": 28 * 28 * 32})
    refuse(recipe.model_copy(update={"model": smaller}), tiny_model, 3, evaluated=False)


@pytest.mark.parametrize("long", ["stage1", "stage2"])
def test_rows_that_no_engine_answers_may_have_any_length(tiny_model: Path, tmp_path: Path, long: str) -> None:
    refuse(recipe_in(tmp_path, "seeding.source=annotators", long=long), tiny_model)


def test_a_job_looks_at_the_prompts_that_it_will_ask_alone(tiny_model: Path, tmp_path: Path) -> None:
    refuse(recipe_in(tmp_path / "1", long="stage2"), tiny_model, 1, 3)

    evaluated = recipe_in(tmp_path / "2", long="unseen")
    refuse(evaluated, tiny_model, evaluated=False)
    with pytest.raises(DataError, match="prompt unseen has"):
        refuse(evaluated, tiny_model, 3)


def test_a_job_does_not_ask_what_it_has_done_unless_the_rows_are_others_now(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, long="stage2")
    for number in (1, 2):
        stage, mark = (
            RunFolder.of(recipe).stage(number),
            (training_digest(recipe, number), training_rows(recipe, number)),
        )
        stage.claim(*mark)
        stage.finish("training", *mark)

    async def check() -> None:
        await PromptLengths(recipe, (1, 2, 3), evaluated=True).check(str(tiny_model))

    asyncio.run(check())
    (tmp_path / "data" / "stage1.jsonl").write_text("other rows", encoding="utf-8")
    with pytest.raises(DataError, match="prompt stage2 has"):
        asyncio.run(check())


def test_the_last_token_that_there_is_room_for_counts(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    chat = ChatFormat(str(tiny_model), ImageLimits())
    longest = max(chat.length(read_file(recipe, f"{name}.jsonl")[0]) for name in FILES if name != "stage1")
    room = longest + RESPONSE

    def with_room(tokens: int) -> Recipe:
        return recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"tokens_per_sequence": tokens})})

    refuse(with_room(room), tiny_model)
    with pytest.raises(DataError, match=f"has {longest} tokens"):
        refuse(with_room(room - 1), tiny_model)


@pytest.fixture
def ray_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that would begin with a learner fail."""

    async def no_learner(*_: object) -> None:
        raise OSError("no learner")

    monkeypatch.setattr("cluster.pipeline.connect", lambda _: None)
    monkeypatch.setattr("cluster.pipeline.run_sft", no_learner)


def test_a_stage_that_is_refused_begins_nothing(tiny_model: Path, tmp_path: Path, ray_alone: None) -> None:
    recipe = recipe_in(tmp_path, long="stage3")
    shutil.copytree(tiny_model, RunFolder.of(recipe).stage(2).model)

    with pytest.raises(DataError, match="prompt stage3 has"):
        run_one_stage(recipe, 3)

    assert not RunFolder.of(recipe).stage(3).path.exists()


def test_a_pipeline_that_is_refused_sets_nothing_aside(tiny_model: Path, tmp_path: Path, ray_alone: None) -> None:
    model = [f"model.path={tiny_model}", "model.scratch=null"]
    recipe = recipe_in(tmp_path, *model, long="stage3")
    RunFolder.of(recipe).stage(1).claim("other settings")

    with pytest.raises(DataError, match="prompt stage3 has"):
        run_pipeline(recipe)

    assert [path.name for path in (tmp_path / "run").glob("stage*")] == ["stage1"]


def test_stage_1_takes_its_folder_before_its_starting_model_is_made_in_it(tmp_path: Path, ray_alone: None) -> None:
    recipe = recipe_in(tmp_path, f"model.scratch={SMALL}", "engine.tokens_per_sequence=256")

    for _ in range(2):
        with pytest.raises(OSError, match="no learner"):
            run_one_stage(recipe, 1)

    assert [path.name for path in (tmp_path / "run").glob("stage*")] == ["stage1"]
    assert (RunFolder.of(recipe).starting_model / "config.json").exists()


def test_a_model_that_is_made_is_what_a_pipelines_prompts_are_measured_by(tmp_path: Path, ray_alone: None) -> None:
    recipe = recipe_in(tmp_path, f"model.scratch={SMALL}", "engine.tokens_per_sequence=256", long="stage3")

    with pytest.raises(DataError, match="prompt stage3 has"):
        run_pipeline(recipe)
