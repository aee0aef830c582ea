"""What a stage depends on, by the names of what it was done with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.digests import evaluation_digest, training_digest
from configs.load import load_recipe
from configs.schema import Recipe

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
