"""What a stage depends on, by the names of what it was done with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.digests import evaluation_digest, evaluation_rows, training_digest, training_rows
from cluster.run_folder import RunFolder
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.picture_store import FOLDER

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def demo(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


def trained_alike(*overrides: str, before: tuple[str, ...] = ()) -> list[bool]:
    """Of each stage."""
    return [training_digest(demo(*before), n) == training_digest(demo(*before, *overrides), n) for n in (1, 2, 3)]


def evaluated_alike(one: Recipe, other: Recipe) -> list[bool]:
    """Of each stage."""
    return [evaluation_digest(one, number) == evaluation_digest(other, number) for number in (1, 2, 3)]


def evaluated_on(**files: str) -> Recipe:
    """With these files and no others, by name."""
    recipe = demo()
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"evaluation": files})})


@pytest.mark.parametrize(
    "override, alike",
    [
        ("stage1.steps=7", [False, False, False]),
        ("seeding.rows_per_prompt=7", [True, False, False]),
        ("rl.steps=7", [True, True, False]),
        ("rl.checkpoint_every_steps=7", [True, True, True]),
        ("learner.tokens_per_micro_batch=512", [True, True, True]),
    ],
)
def test_a_stage_depends_on_its_own_settings_and_on_the_stages_before_it(override: str, alike: list[bool]) -> None:
    assert trained_alike(override) == alike


def test_stage_2_depends_on_how_long_the_responses_are_that_it_is_seeded_from() -> None:
    assert trained_alike("rl.response_tokens=32") == [True, False, False]
    assert trained_alike("rl.response_tokens=32", before=("seeding.source=annotators",)) == [True, True, False]


def test_an_evaluation_depends_on_its_files_and_on_their_names() -> None:
    before = evaluated_on(seen="a.jsonl")

    assert evaluated_alike(before, evaluated_on(seen="a.jsonl")) == [True, True, True]
    assert evaluated_alike(before, evaluated_on(test="a.jsonl")) == [False, False, False]
    assert evaluated_alike(before, evaluated_on(seen="b.jsonl")) == [False, False, False]


def test_an_evaluation_depends_on_what_counts_as_right() -> None:
    override = "rewards.correctness=choice"

    assert trained_alike(override) == [True, True, False]
    assert evaluated_alike(demo(), demo(override)) == [False, False, False]


def over(root: Path, *overrides: str) -> Recipe:
    """With a file for everything."""
    for name in ("stage1", "stage2", "stage3", "seen", "unseen"):
        (root / f"{name}.jsonl").write_text(name, encoding="utf-8")
    return demo(f"data.root={root}", f"output={root}/run", *overrides)


@pytest.mark.parametrize(
    "changed, trained, evaluated",
    [
        ("stage1", [False, True, True], [True, True, True]),
        ("stage2", [True, False, True], [True, True, True]),
        ("stage3", [True, True, False], [True, True, True]),
        ("unseen", [True, True, True], [False, False, False]),
    ],
)
def test_a_stage_depends_on_what_is_in_its_files(
    tmp_path: Path, changed: str, trained: list[bool], evaluated: list[bool]
) -> None:
    recipe = over(tmp_path)
    before = [(training_rows(recipe, number), evaluation_rows(recipe, number)) for number in (1, 2, 3)]
    (tmp_path / f"{changed}.jsonl").write_text("CHANGE"[: len(changed)], encoding="utf-8")
    after = [(training_rows(recipe, number), evaluation_rows(recipe, number)) for number in (1, 2, 3)]

    assert [one[0] == other[0] for one, other in zip(before, after, strict=True)] == trained
    assert [one[1] == other[1] for one, other in zip(before, after, strict=True)] == evaluated


def test_a_stage_depends_on_what_its_start_was_trained_on_and_not_on_what_the_file_has_since(tmp_path: Path) -> None:
    recipe = over(tmp_path)
    stages = [RunFolder.of(recipe).stage(number) for number in (1, 2)]
    for stage in stages:
        stage.claim("")

    def trained_on(number: int, rows: str | None) -> tuple[str | None, str | None]:
        stages[number - 1].finish("training", "", rows)
        return training_rows(recipe, 2), training_rows(recipe, 3)

    (a2, a3), (b2, b3) = trained_on(1, "A"), trained_on(1, "B")
    assert a2 != b2
    assert trained_on(2, a2)[1] != trained_on(2, b2)[1] != a3 == b3
    first = evaluation_rows(recipe, 2)
    trained_on(2, a2)
    assert evaluation_rows(recipe, 2) != first
    (tmp_path / "stage1.jsonl").write_text("since")
    assert training_rows(recipe, 2) == b2


def test_a_file_that_was_only_copied_is_the_same(tmp_path: Path) -> None:
    recipe = over(tmp_path)
    before = training_rows(recipe, 3)
    os.utime(tmp_path / "stage1.jsonl", (0, 0))

    assert training_rows(recipe, 3) == before is not None


def test_a_folder_of_data_is_what_its_files_hold_and_are_called(tmp_path: Path) -> None:
    recipe = over(tmp_path, "data.stage1=shards")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.jsonl").write_text("1")
    found = {training_rows(recipe, 1)}
    (tmp_path / "shards" / "b.jsonl").write_text("2")
    found.add(training_rows(recipe, 1))
    (tmp_path / "shards" / "b.jsonl").rename(tmp_path / "shards" / "c.jsonl")
    found.add(training_rows(recipe, 1))
    (tmp_path / "shards" / FOLDER).mkdir()  # where the folder is the data's root
    (tmp_path / "shards" / FOLDER / "1.png").write_text("of a row")
    found.add(training_rows(recipe, 1))

    assert len(found) == 3 and None not in found


def test_where_a_file_is_not_here_nothing_is_said_of_rows(tmp_path: Path) -> None:
    recipe = over(tmp_path)
    (tmp_path / "stage2.jsonl").unlink()

    assert training_rows(recipe, 1) is not None is not evaluation_rows(recipe, 2)
    assert training_rows(recipe, 2) is None
