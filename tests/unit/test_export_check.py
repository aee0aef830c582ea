"""How the libraries' answers about an export are judged; that they are given, the integration test shows."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import export_check
from cluster.export_check import OURS, Checked, ExportDiffers, Question, check_export
from configs.schema import Engine
from learner.next_token import Said
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Message, Prompt
from tests.unit import test_imports

LOGITS = torch.tensor([0.5, 2.0, -1.0, 0.0])
SAID = Said([0, 3, 1], LOGITS, torch.tensor([-0.25, -4.0]))
QUESTION = Question("text", Prompt("p", "t", (Message("user", "Which?"),)), SAID)
BY_TRANSFORMERS = {"version": "5", "answers": [{"token_ids": [0, 3, 1], "logits": LOGITS.tolist()}]}
LIKELIEST = {"1": LOGITS.log_softmax(0)[1].item(), "0": LOGITS.log_softmax(0)[0].item()}
BY_VLLM = {
    "version": "0.32",
    "answers": [{"token_ids": [0, 3, 1], "prompt_logprobs": [-0.25, -4.0], "likeliest": LIKELIEST}],
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the libraries say; a test changes it."""
    said = copy.deepcopy({"transformers": BY_TRANSFORMERS, "vllm": BY_VLLM})
    monkeypatch.setattr(export_check, "_ask", lambda library, *given: said[library])
    return said


def check(tiny_model: Path) -> list[Checked]:
    chat = ChatFormat(str(tiny_model), ImageLimits())
    return check_export(tiny_model, "AutoModelForImageTextToText", chat, [QUESTION], Engine(), None)


def test_answers_that_are_the_model_s_pass_with_their_differences(answers: dict[str, Any], tiny_model: Path) -> None:
    answers["vllm"]["answers"][0]["prompt_logprobs"][1] -= 5e-4

    by_transformers, by_vllm = check(tiny_model)

    assert by_transformers.differences == {"text": 0.0}
    assert by_vllm.differences["text"] == pytest.approx(5e-4, rel=1e-2)
    assert str(by_vllm) == "vLLM 0.32: largest difference of a log-probability: text 5.0e-04 (0.001 allowed)"


@pytest.mark.parametrize("wrong", [2e-3, math.nan])
@pytest.mark.parametrize("where", ["logits", "prompt_logprobs", "likeliest"])
def test_a_single_number_that_is_another_or_none_is_refused(
    answers: dict[str, Any], tiny_model: Path, where: str, wrong: float
) -> None:
    library = "transformers" if where == "logits" else "vllm"
    numbers = answers[library]["answers"][0][where]
    numbers["0" if where == "likeliest" else 1] += wrong

    with pytest.raises(ExportDiffers, match="something else than its model") as refused:
        check(tiny_model)
    assert library in str(refused.value).lower()


@pytest.mark.parametrize("library", ["transformers", "vllm"])
def test_a_prompt_that_is_read_as_other_tokens_is_refused(
    answers: dict[str, Any], tiny_model: Path, library: str
) -> None:
    answers[library]["answers"][0]["token_ids"] = [0, 3, 2, 1]

    with pytest.raises(ExportDiffers, match=f"{library} reads the text prompt as other tokens .*: 4 of them, expect"):
        check(tiny_model)


def test_a_library_that_fails_is_named_with_its_last_words(tmp_path: Path, tiny_model: Path) -> None:
    chat = ChatFormat(str(tiny_model), ImageLimits())

    with pytest.raises(ExportDiffers, match=r"transformers does not load it, exit code 1:\n(.*\n)*.*nowhere"):
        check_export(tmp_path / "nowhere", "AutoModelForImageTextToText", chat, [QUESTION], Engine(), None)


def test_every_folder_of_ours_is_kept_from_the_libraries() -> None:
    assert set(OURS) == set(test_imports.OURS)
