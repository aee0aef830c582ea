"""Rows with and without pictures under ZeRO-3: told before anything starts, where ranks would wait for each other."""

from __future__ import annotations

from pathlib import Path

import pytest

import cluster.pipeline
from cluster.mixed_pictures import refuse_mixed
from cluster.pipeline import check_data
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.prompts import Message, Prompt
from rollout.readers import DataError

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def recipe_with(zero_stage: int, ranks: int) -> Recipe:
    return load_recipe(DEMO, [f"learner.zero_stage={zero_stage}", f"learner.ranks={ranks}", "rl.prompts_per_step=64"])


def prompts(*pictures: int) -> list[Prompt]:
    return [
        Prompt(f"p{number}", "t", (Message("user", "?"),), ("a.png",) * count) for number, count in enumerate(pictures)
    ]


@pytest.mark.parametrize(
    ("zero_stage", "ranks", "pictures"), [(2, 2, (1, 0)), (3, 1, (1, 0)), (3, 2, (1, 2)), (3, 2, (0, 0)), (3, 2, ())]
)
def test_what_no_rank_would_wait_for_is_let_through(zero_stage: int, ranks: int, pictures: tuple[int, ...]) -> None:
    refuse_mixed(recipe_with(zero_stage, ranks), "stage1.jsonl", prompts(*pictures))


def test_a_mixed_file_is_named_with_its_first_bare_row_and_what_to_set() -> None:
    with pytest.raises(DataError) as raised:
        refuse_mixed(recipe_with(3, 2), "stage1.jsonl", prompts(1, 0, 2, 0))

    assert str(raised.value).startswith("stage1.jsonl: 2 of 4 prompts have no picture, p1 the first of them.")
    assert "set learner.zero_stage to 2" in str(raised.value)


@pytest.mark.parametrize("mixed", ["stage1.jsonl", "stage2.jsonl", "stage3.jsonl"])
def test_every_file_that_is_trained_on_is_looked_at(monkeypatch: pytest.MonkeyPatch, mixed: str) -> None:
    monkeypatch.setattr(cluster.pipeline, "prepare_data", lambda _: None)
    monkeypatch.setattr(
        cluster.pipeline, "read_file", lambda _, file, **__: prompts(1, 0) if file == mixed else prompts(1)
    )

    with pytest.raises(DataError, match=f"^{mixed}: 1 of 2 prompts"):
        check_data(recipe_with(3, 2))
