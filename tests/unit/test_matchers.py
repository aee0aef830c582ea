from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cluster.pipeline
from cluster.matchers import opened, refuse_unusable
from cluster.pipeline import run_one_stage
from cluster.remote_judge import RemoteJudge
from configs.load import load_recipe
from configs.schema import Recipe, Rewards, RewardService
from rollout.prompts import Message, Prompt
from rollout.readers import DataError
from rollout.scorer_process import ScorerError, UnusableScorer

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe(DEMO, overrides)


def prompt(label: str, counts: dict[str, int] | None = None) -> Prompt:
    return Prompt("p7", "math", (Message("user", "?"),), candidates=(), label=label, counts=counts or {})


@pytest.mark.parametrize(
    ("correctness", "answer", "reference"),
    [("exact", " JOY", "joy"), ("numeric", "50%", "1/2"), ("choice", "(b)", "B")],
)
def test_a_word_opens_the_matcher_it_names(correctness: str, answer: str, reference: str) -> None:
    with opened(Rewards(correctness=correctness), RewardService()) as matches:
        assert matches(answer, reference) == 1
        assert matches("c", reference) == 0


def test_a_class_is_asked_within_the_services_limits() -> None:
    rewards = Rewards(correctness="tests.unit.user_scorers:Moody")
    roomy = RewardService(seconds_per_response=60.0, memory_gib_per_scorer=8.0)  # its default is less than 4 GiB take
    brief = RewardService(seconds_per_response=2.0)

    with opened(rewards, roomy) as moody:
        assert moody("take 4 GiB", "") == 1.0
    with opened(rewards, brief) as moody, pytest.raises(ScorerError, match="gave no answer in 2 s"):
        moody("hang", "")


def test_a_section_opens_the_judge() -> None:
    rewards: dict[str, Any] = {"correctness": "judge", "judge": {"url": "https://judge"}}

    with opened(Rewards.model_validate(rewards), RewardService()) as judge:
        assert isinstance(judge, RemoteJudge)


def test_a_scorer_that_cannot_be_made_is_refused_before_anything_is_trained() -> None:
    recipe = recipe_with("rewards.correctness=tests.unit.user_scorers:RaisesWhenMade")

    with pytest.raises(UnusableScorer, match=r"^rewards.correctness: (.|\n)*no model here"):
        refuse_unusable(recipe, [])


def test_a_job_whose_scorer_cannot_be_made_ends_before_ray_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    def join() -> None:
        raise AssertionError("Ray was joined")

    monkeypatch.setattr(cluster.pipeline, "prepare_data", lambda _: None)
    monkeypatch.setattr(cluster.pipeline, "read_file", lambda *_, **__: [])
    monkeypatch.setattr(cluster.pipeline, "connect", join)
    recipe = recipe_with("rewards.correctness=no.such.module:Scorer")

    with pytest.raises(UnusableScorer):
        run_one_stage(recipe, 1)


def test_references_that_the_matcher_cannot_read_are_all_named() -> None:
    prompts = [prompt("a dozen"), prompt("12"), prompt("many")]

    with pytest.raises(DataError) as raised:
        refuse_unusable(recipe_with("rewards.correctness=numeric", "rewards.reference=label"), prompts)

    assert [problem.split(", expected")[0] for problem in raised.value.problems] == [
        "stage3.jsonl: prompt p7: got the reference 'a dozen'",
        "stage3.jsonl: prompt p7: got the reference 'many'",
    ]


@pytest.mark.parametrize(
    ("reference", "target", "read"),
    [
        ("label", "null", True),
        ("annotator", "null", False),
        ("shares", "null", False),
        ("label", "{outcome: 0.5, annotators: 0.5}", False),
    ],
)
def test_votes_are_references_where_an_answer_may_be_held_against_them(reference: str, target: str, read: bool) -> None:
    recipe = recipe_with("rewards.correctness=numeric", f"rewards.reference={reference}", f"rewards.target={target}")
    voted = prompt("12", {"12": 3, "a dozen": 1, "nobody's": 0})

    if read:
        refuse_unusable(recipe, [voted])
    else:
        with pytest.raises(DataError, match="'a dozen'") as raised:
            refuse_unusable(recipe, [voted])
        assert len(raised.value.problems) == 1


@pytest.mark.parametrize("setting", ["rewards.reference=shares", "rewards.target={annotators: 0.5}"])
def test_rows_without_the_counts_that_the_mix_asks_for_are_all_named(setting: str) -> None:
    prompts = [prompt("joy"), prompt("joy", {"joy": 3}), prompt("fear")]

    with pytest.raises(DataError, match="prompt p7 has no counts of annotators") as raised:
        refuse_unusable(recipe_with(setting), prompts)

    assert len(raised.value.problems) == 2


def test_labels_about_which_no_answer_is_right_by_a_released_reading_are_all_named() -> None:
    preset = ("rewards.preset=emocaliber", "rewards.allow_unsafe=true", "rewards.confidence_gradient=sampled")
    recipe = recipe_with(*preset, "rewards.reference=label", "rewards.target={outcome: 1}")

    refuse_unusable(recipe, [prompt("Joy")])
    with pytest.raises(DataError, match="no answer is right about 'not sure'") as raised:
        refuse_unusable(recipe, [prompt("joy"), prompt("not sure"), prompt("self-pity")])

    assert len(raised.value.problems) == 2


VOTES = {f"mood {number}": 1 for number in range(8)}
OWN = "rewards.correctness=tests.unit.user_scorers:Echo"
JUDGE = "rewards={correctness: judge, judge: {url: 'https://judge', attempts: 1, seconds_per_request: 15}}"


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ([OWN, "rewards.reference=shares"], "the 160 that 4 responses held against 8 references each may take"),
        ([OWN, "rewards.target={annotators: 0.5}"], "the 180 that 4 responses held against 9 references each may take"),
        ([JUDGE, "rewards.target={annotators: 0.5}"], "the 135 that a judge may take for 4 responses held against 9 "),
    ],
)
def test_a_prompt_with_more_votes_than_a_group_has_time_for_is_named(settings: list[str], needed: str) -> None:
    few = replace(prompt("mood 1", {"mood 1": 2, "nobody's": 0}), prompt_id="p1")

    with pytest.raises(DataError, match="prompt p7 has votes for 8 candidates: ") as raised:
        refuse_unusable(recipe_with("rl.samples_per_prompt=4", *settings), [few, prompt("mood 1", VOTES), few])

    assert needed in str(raised.value)
    assert "raise it or lower" in str(raised.value)
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(
    "settings",
    [
        ["rewards.reference=label"],
        ["rewards.reference=annotator"],
        ["rewards.reference=shares", "reward_service.seconds_per_group=160"],
        ["rewards.reference=shares", "reward_service.seconds_per_response=3"],
    ],
)
def test_votes_that_are_not_all_asked_about_or_that_there_is_time_for_are_taken(settings: list[str]) -> None:
    refuse_unusable(recipe_with("rl.samples_per_prompt=4", OWN, *settings), [prompt("mood 1", VOTES)])
