"""Tests of `caliber reward`: a mix of rewards on paper, and the released readings behind the presets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from cluster.predictions import PredictionsError
from cluster.reward_rows import mix_of, reward_rows
from configs.schema import Preset, Reading, Response, Rewards
from rewards.correctness import is_correct
from rewards.parse import Malformed
from rewards.readings import read_released
from rewards.released.emocaliber import emocaliber_reward
from rewards.released.rlcr import Form, rlcr_reward

ELEMENTS = "".join(f"<{name}>x</{name}>" for name in Response().reasoning_elements)


def say(answer: str, confidence: str) -> str:
    return f"<think>{ELEMENTS}</think><answer>{answer}</answer><confidence>{confidence}</confidence>"


def write(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(path: Path, rewards: Rewards, form: Response | None = None) -> list[dict[str, Any]]:
    return list(reward_rows(path, rewards, form or Response(), is_correct))


CONFIDENCES = ["0.8", "0.05", "0.999", "0", "1", "nan", ".5", "85", "0_5", "high", ""]
RESPONSES = [say(answer, stated) for answer in ("joy", "Joy.", "fear") for stated in CONFIDENCES] + [
    "no tags",
    say("joy", "0.9") + " and more",
    "<think>short</think><answer>joy</answer><confidence>0.7</confidence>",
]


@pytest.mark.parametrize("response", RESPONSES)
def test_the_total_of_the_emocaliber_preset_is_the_released_codes(tmp_path: Path, response: str) -> None:
    path = write(tmp_path, {"response": response, "ground_truth": "joy"})

    (found,) = answers(path, Rewards(preset=Preset.EMOCALIBER))

    assert found["total"] == pytest.approx(emocaliber_reward(response, "joy").total)
    assert found["released"]["total"] == pytest.approx(found["total"])


def test_the_emocaliber_preset_wants_the_recipes_own_elements(tmp_path: Path) -> None:
    response = "<think><word>dawn</word></think><answer>joy</answer><confidence>0.8</confidence>"
    path = write(tmp_path, {"response": response, "ground_truth": "joy"})
    rewards = Rewards(preset=Preset.EMOCALIBER)

    (own,) = answers(path, rewards, Response(reasoning_elements=("word",)))
    (other,) = answers(path, rewards)

    assert own["total"] == own["released"]["total"] == pytest.approx(2 + 2 * math.log(0.8))
    assert other["total"] == other["released"]["total"] == -5


@pytest.mark.parametrize("response", RESPONSES)
def test_the_total_of_the_rlcr_preset_is_the_released_codes(tmp_path: Path, response: str) -> None:
    path = write(tmp_path, {"response": response, "ground_truth": "joy"})

    (found,) = answers(path, Rewards(preset=Preset.RLCR))

    released = rlcr_reward(response, "joy", Form.TAC).total
    if math.isnan(released):
        assert "'nan', which the released code takes and whose reward is nan" in found["failure"]
        assert found["released"]["total"] is None
    else:
        assert found["total"] == pytest.approx(released)


@given(st.text(), st.sampled_from([Reading.EMOCALIBER, Reading.RLCR]))
def test_what_a_released_code_does_not_take_is_malformed(text: str, reading: Reading) -> None:
    parsed, correct = read_released(text, "joy", reading, Response().reasoning_elements)

    assert (parsed.malformed, correct) == (Malformed.NOT_AS_RELEASED, None)


def test_a_released_reading_says_where_in_the_response_it_read() -> None:
    text = say(" Joy. ", " 0.8 ")

    parsed, correct = read_released(text, "joy", Reading.EMOCALIBER, Response().reasoning_elements)

    assert (correct, parsed.answer, parsed.confidence) == (1.0, "joy", 0.8)
    assert parsed.answer_span and parsed.confidence_span
    assert (text[slice(*parsed.answer_span)], text[slice(*parsed.confidence_span)]) == (" Joy. ", " 0.8 ")


def test_rows_of_one_id_are_a_group_whose_share_the_confidences_are_held_against(tmp_path: Path) -> None:
    rows = [("a", "joy", "0.8"), ("b", "fear", "0.3"), ("a", "fear", "0.4")]
    path = write(tmp_path, *({"id": i, "response": say(a, c), "ground_truth": "joy"} for i, a, c in rows))

    found = answers(path, Rewards(preset=Preset.DCPO))

    assert [row["id"] for row in found] == ["a", "b", "a"]
    assert [row["target"] for row in found] == pytest.approx([0.75, 0.0, 0.25])
    assert found[0]["credited"]["confidence"] == pytest.approx(1 - 0.5 * (0.75 - 0.8) ** 2)
    assert found[0]["credited"]["answer"] == 2.0


def test_rows_of_one_id_are_of_one_question(tmp_path: Path) -> None:
    """Merged files may have used an id twice, or one that is another row's line number."""
    known = {"response": say("joy", "0.8"), "candidates": ["joy", "fear"], "ground_truth": "joy"}
    others = ({}, {"ground_truth": "fear"}, {"candidates": ["joy", "calm"]}, {"counts": {"joy": 1}}, {"id": None})
    last = {"id": "5", "counts": {"fear": 1}}
    path = write(tmp_path, *(known | {"id": "a"} | other for other in (*others, last)))

    with pytest.raises(PredictionsError) as refused:
        answers(path, Rewards())

    told = [line.partition(", which has the same id ") for line in str(refused.value).splitlines()]
    assert [what for what, _, _ in told] == [
        f"{path}:2: not the ground_truth of line 1",
        f"{path}:3: not the candidates of line 1",
        f"{path}:4: not the counts of line 1",
        f"{path}:6: not the counts of line 5",
    ]
    assert told[-1][2] == "'5' (a row without one has its line's number): give each question its own"


def test_shares_come_from_the_rows_counts(tmp_path: Path) -> None:
    path = write(tmp_path, {"response": say("joy", "0.8"), "counts": {"joy": 3, "fear": 1}})

    (found,) = answers(path, Rewards.model_validate({"reference": "shares"}))

    assert (found["correct"], found["target"]) == (0.75, 0.75)


def test_a_row_that_cannot_be_scored_says_why_and_costs_no_other(tmp_path: Path) -> None:
    rows = [{"response": say("joy", "0.8"), "ground_truth": "joy"}, {"response": "", "counts": {"joy": 3}}]
    path = write(tmp_path, *rows)

    first, second = answers(path, Rewards.model_validate({"target": {"annotators": 1.0}}))

    assert "the row has no counts" in first["failure"]
    assert second["malformed"] == "missing_tag"


def test_the_command_writes_a_row_for_each_row_and_tells_what_is_unsafe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, *({"response": response, "ground_truth": "joy"} for response in RESPONSES))

    code = main(["reward", "emocaliber", str(path), "--out", str(tmp_path / "rewards.jsonl")])

    written = (tmp_path / "rewards.jsonl").read_text(encoding="utf-8").splitlines()
    assert code == 0
    assert [json.loads(line)["id"] for line in written] == [str(number + 1) for number in range(len(RESPONSES))]
    assert "UNSAFE: Below p = 0.849" in capsys.readouterr().err


@pytest.mark.parametrize(("mix", "overrides"), [("ppo", []), ("rlcr", ["rewards.log_clip=0.1"])])
def test_what_is_neither_preset_nor_recipe_is_refused(mix: str, overrides: list[str]) -> None:
    with pytest.raises(ValueError, match="preset"):
        mix_of(mix, overrides)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (["rewards.reading=rlcr", "rewards.correctness=numeric"], "rewards.correctness: numeric is never asked"),
        (["rewards.scoring_rule=unclipped_log"], "set it to log"),
        (["rewards.divide_by_std=true"], "rewards.credit to joint"),
    ],
)
def test_a_mix_that_cannot_work_is_refused_as_a_job_would(settings: list[str], remedy: str) -> None:
    demo = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"

    with pytest.raises(ValueError, match=rf"the recipe's rewards cannot work:\n(.|\n)*{remedy}"):
        mix_of(str(demo), settings)


def test_a_recipes_mix_is_read_with_its_overrides() -> None:
    demo = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"

    rewards, form, _ = mix_of(str(demo), ["rewards.weights.calibration=0.5"])

    assert rewards.weights.calibration == 0.5
    assert form.confidence_step == 0.05
