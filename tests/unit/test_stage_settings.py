from __future__ import annotations

from pathlib import Path

import pytest

from cluster.stage_settings import changes, digest, settings_of
from configs.load import load_recipe
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
SECTIONS = ("data", "stage1", "learner", "rl")


def demo(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


def named(*overrides: str) -> str:
    return digest(settings_of(demo(*overrides), SECTIONS))


@pytest.mark.parametrize(
    "override",
    [
        "stage1.steps=7",
        "data.emoji.sft_emoji=3",
        "data.stage1=others.jsonl",
        "rl.optimizer.learning_rate=1e-6",
        "rl.max_policy_lag=0",
        "learner.precision=bf16",
        "learner.lora={rank: 4}",
    ],
)
def test_a_setting_that_changes_the_model_changes_the_digest(override: str) -> None:
    assert named(override) != named()


@pytest.mark.parametrize(
    "override",
    [
        "stage1.log_every_steps=7",
        "rl.seconds_per_wait=5",
        "rl.checkpoint_every_steps=3",
        "rl.checkpoints_kept=5",
        "stage2.checkpoints_kept=5",
        "learner.ranks=3",
        "data.errors_shown=1",
        "learner.cores=['1']",
    ],
)
def test_a_setting_that_changes_only_the_pace_leaves_the_digest(override: str) -> None:
    assert named(override) == named()


@pytest.mark.parametrize(
    "override",
    [
        "learner.gpus_per_rank=1",
        "learner.tokens_per_micro_batch=512",
        "learner.share_prompts=false",
        "learner.gradient_checkpointing=true",
    ],
)
def test_a_setting_that_is_of_memory_alone_leaves_the_digest(override: str) -> None:
    assert named(override) == named()


@pytest.mark.parametrize("override", ["data.root=/elsewhere", "data.image_megapixels_at_most=100"])
def test_where_the_data_lie_and_how_large_a_picture_may_be_leave_the_digest(override: str) -> None:
    assert named(override) == named()


def test_a_digest_depends_on_all_that_it_is_of() -> None:
    assert digest({"a": 1}, "a") != digest({"a": 1}, "b") != digest({"a": 2}, "b")


def test_settings_that_changed_are_called_as_overrides_call_them() -> None:
    sections = "data", "rl", "learner"
    before = settings_of(demo(), sections)
    now = settings_of(demo("rl.steps=7", "learner.lora={rank: 4}", "data.root=/elsewhere"), sections)

    lora, steps = changes(before, now)

    assert lora == 'learner.lora was null, is {"rank": 4, "alpha": null, "targets": null}'
    assert steps == f"rl.steps was {demo().rl.steps}, is 7"
