"""The schema's own promises, and every recipe that is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from pydantic import ValidationError

from configs.derive import derive, problems
from configs.fields import describe, section_under
from configs.load import RecipeError, load_recipe, write_resolved
from configs.schema import (
    ConfidenceScale,
    Credit,
    Data,
    Engine,
    Judge,
    Model,
    Preset,
    Reading,
    Recipe,
    Response,
    Rewards,
    RewardWeights,
    Rl,
    ScratchModel,
    Section,
    TargetMix,
    Transfer,
)

RECIPES = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(RECIPES.rglob("*.yaml"))


def sections(section: type[Section] = Recipe) -> Iterator[type[Section]]:
    """A section and all sections in it."""
    yield section
    for name in section.model_fields:
        inner = section_under(section, name)
        if inner is not None:
            yield from sections(inner)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_shipped_recipe_loads_can_work_and_survives_being_written(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    write_resolved(recipe, tmp_path / "resolved.yaml")

    assert problems(recipe) == []
    assert derive(recipe).trajectories_per_step > 0
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_recipes_are_shipped() -> None:
    names = ("emoji/demo.yaml", "words/words.yaml", "emocaliber/8gpus.yaml", "emocaliber/4nodes.yaml")
    assert {RECIPES / name for name in names} <= set(SHIPPED)


def test_every_key_has_help() -> None:
    assert [field.path for field in describe() if not field.help] == []


def test_what_may_be_null_is_null_by_default() -> None:
    """Else null, which asks for the default, could not be written into a resolved recipe."""
    may_be_null = [
        (section, name, field.default)
        for section in sections()
        for name, field in section.model_fields.items()
        if NoneType in get_args(field.annotation)
    ]

    assert len(may_be_null) >= 7
    assert [found for found in may_be_null if found[2] is not None] == []


def test_every_section_says_what_it_is() -> None:
    assert [section for section in sections() if not section.__doc__] == []


def test_a_section_cannot_be_changed() -> None:
    engine = Engine()

    with pytest.raises(ValidationError, match="frozen"):
        engine.workers = 2


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Engine.model_validate({"worker": 2})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0, -1.0])
def test_a_temperature_of_rl_is_a_positive_number(value: float) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        Rl.model_validate({"steps": 1, "optimizer": {"learning_rate": 1.0}, "temperature": value})


@pytest.mark.parametrize(
    "values", [{}, {"path": "a", "scratch": ScratchModel()}, {"scratch": ScratchModel(), "gguf": {"file": "a"}}]
)
def test_a_model_has_exactly_one_source(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"exactly one of model\.path, model\.scratch and model\.gguf"):
        Model.model_validate(values)


def test_a_whole_copy_at_every_update_would_leave_no_room_for_deltas() -> None:
    with pytest.raises(ValidationError, match="full_every"):
        Transfer.model_validate({"deltas": True, "full_every": 1})


def test_a_root_holds_one_set() -> None:
    with pytest.raises(ValidationError, match=r"data\.emoji or data\.words, not both"):
        Data.model_validate({"root": "a", "emoji": {}, "words": {}})


@pytest.mark.parametrize(
    ("step", "count", "some"),
    [
        (0.05, 21, ("0.00", "0.05", "0.55")),
        (0.1, 11, ("0.0", "0.1", "0.2")),
        (0.001, 1001, ("0.000", "0.001", "0.002")),
    ],
)
def test_the_grid_of_confidences_goes_from_0_to_1_with_the_steps_decimals(
    step: float, count: int, some: tuple[str, ...]
) -> None:
    grid = Response(confidence_step=step).confidences

    assert len(grid) == count == len(set(grid))
    stated = list(grid)
    assert stated[0] == some[0] and stated[-1] == f"1{some[0][1:]}" and set(some) <= set(stated)
    assert [float(text) for text in grid] == pytest.approx([k * step for k in range(count)])
    assert [*grid.values()] == [float(text) for text in grid]


@pytest.mark.parametrize(("step", "some"), [(0.05, ("0%", "5%", "100%")), (0.005, ("0.0%", "0.5%", "100.0%"))])
def test_the_grid_of_percents_has_the_decimals_it_needs(step: float, some: tuple[str, ...]) -> None:
    grid = Response(confidence_scale=ConfidenceScale.PERCENT, confidence_step=step).confidences

    assert tuple(grid)[0:2] + tuple(grid)[-1:] == some
    assert [*grid.values()] == pytest.approx([k * step for k in range(len(grid))])


def test_the_grid_of_words_is_in_the_order_of_what_they_are_worth() -> None:
    words = {"surely": 0.9, "hardly": 0.1, "maybe": 0.5}

    form = Response(confidence_scale=ConfidenceScale.VERBAL, confidence_words=words)

    assert list(form.confidences.items()) == [("hardly", 0.1), ("maybe", 0.5), ("surely", 0.9)]


@pytest.mark.parametrize(
    "words", [{"maybe": 0.5, " Maybe": 0.6}, {"maybe": 0.5, "even": 0.5}, {"": 0.5, "even": 0.4}, {"<b>": 0, "b": 1}]
)
def test_words_that_cannot_be_told_apart_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=r"expected different words|belong to tags"):
        Response(confidence_words=words)


def test_a_preset_gives_the_settings_and_what_stands_beside_it_goes_over_them() -> None:
    mix = Rewards.model_validate({"preset": "rlcr", "weights": {"format": 2.0}, "credit": "apart"})

    assert mix.weights == RewardWeights(correctness=0.5, calibration=0.5, format=2.0)
    assert (mix.reading, mix.credit, mix.malformed.calibration) == (Reading.RLCR, Credit.APART, 0.0)


@pytest.mark.parametrize("preset", Preset)
def test_a_resolved_preset_is_read_again_as_it_was(preset: Preset) -> None:
    mix = Rewards(preset=preset)

    assert Rewards.model_validate(mix.model_dump(mode="json")) == mix


@pytest.mark.parametrize("name", ["exact", "numeric", "choice", "scorers:Mine", "my.package.scorers:Mine_2"])
def test_correctness_is_one_of_the_built_in_words_or_a_class_of_the_users(name: str) -> None:
    mix = Rewards(correctness=name)

    assert mix.own_scorer is (":" in name)


@pytest.mark.parametrize("name", ["Exact", "exact ", "", "scorers.Mine", ":Mine", "my scorers:Mine", "a:B:C", "a:B()"])
def test_what_correctness_cannot_be_is_answered_with_what_it_can(name: str) -> None:
    with pytest.raises(ValidationError, match=r"expected exact, numeric, choice, judge, or package.module:Class"):
        Rewards(correctness=name)


def test_a_judge_and_its_settings_go_together() -> None:
    judge = Judge(url="https://judge/score", attempts=4, seconds_per_request=5.0)

    assert Rewards(correctness="judge", judge=judge).judge == judge
    assert judge.seconds_at_most == 4 * 5 + 3 * 10
    with pytest.raises(ValidationError, match=r"needs the section rewards.judge"):
        Rewards(correctness="judge")
    with pytest.raises(ValidationError, match=r"rewards.judge is never asked with rewards.correctness exact"):
        Rewards(judge=judge)


@pytest.mark.parametrize("url", ["judge:8000", "ftp://judge", "http://", "http://judge /score"])
def test_a_judge_is_asked_over_http(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        Judge(url=url)


@pytest.mark.parametrize(
    "url", ["https://judge/score", "http://localhost:8000", "http://127.0.0.9", "http://[::1]:8000/score"]
)
def test_a_judge_elsewhere_is_asked_by_https_and_one_on_this_machine_as_it_likes(url: str) -> None:
    assert Judge(url=url).url == url


@pytest.mark.parametrize("url", ["http://judge/score", "http://192.0.2.7", "http://localhost.judge.example"])
def test_http_to_another_machine_takes_a_setting(url: str) -> None:
    with pytest.raises(ValidationError, match=r"make it https, or set rewards.judge.plain_http to true"):
        Judge(url=url)
    assert Judge(url=url, plain_http=True).plain_http


@pytest.mark.parametrize("url", ["https://me:hunter2@judge/", "https://hunter2@judge/", "https://:hunter2@judge/"])
def test_a_password_in_the_judge_s_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RecipeError, match=r"rewards.judge.token_variable") as caught:
        load_recipe(SHIPPED[0], ["rewards.correctness=judge", f"rewards.judge={{url: '{url}'}}"])

    assert "hunter2" not in str(caught.value)


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'default', 'emocaliber', 'rlcr', 'dcpo' or 'rlvr'"):
        Rewards.model_validate({"preset": "ppo"})


def test_a_target_takes_the_rest_from_the_outcome() -> None:
    assert TargetMix.model_validate({"annotators": 0.25}).outcome == 0.75
    assert TargetMix.model_validate({"annotators": "0.25", "group": "0.5"}).outcome == 0.25  # as a recipe is read


def test_a_target_that_is_no_number_is_refused_by_its_own_field() -> None:
    with pytest.raises(ValidationError, match="annotators"):
        TargetMix.model_validate({"annotators": "much"})


@pytest.mark.parametrize("mix", [{"outcome": 0.5}, {"outcome": 1.0, "group": 0.5}, {"annotators": 0.8, "group": 0.8}])
def test_a_target_that_does_not_add_up_to_1_is_refused(mix: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="add up to"):
        TargetMix.model_validate(mix)


def test_a_step_that_does_not_reach_1_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"no multiple of 0.03"):
        Response(confidence_step=0.03)
