from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from configs.schema import Response
from rollout.answer_probability import answer_probability
from rollout.trajectory import FinishReason, Sample, VersionSpan
from tests.unit.byte_tokenizer import END, tokenizer

FREE = Response(reasoning_elements=())
CANDIDATES = ("joy", "fear")
BEFORE, AFTER = "<think>joy</think><answer>", "</answer><confidence>0.8</confidence>"


def sample(text: str, logprobs: Sequence[float] | None = None, reason: FinishReason = FinishReason.STOP) -> Sample:
    """The text's tokens, a character or a tag each, and the end token."""
    ids = tokenizer().encode(text).ids + [END] * (reason is FinishReason.STOP)
    given = np.full(len(ids), -9.0) if logprobs is None else np.array(logprobs)
    return Sample(
        np.array(ids, np.int32), given.astype(np.float32), (VersionSpan(0, 0, len(ids)),), reason, text, 0.0, 1.0
    )


def probability(one: Sample, require_confidence: bool = True) -> float | None:
    return answer_probability(one, tokenizer(), FREE, CANDIDATES, require_confidence=require_confidence)


def test_it_is_the_product_of_the_answers_tokens_alone() -> None:
    others = len(tokenizer().encode(BEFORE).ids), len(tokenizer().encode(AFTER).ids) + 1
    logprobs = [-9.0] * others[0] + [math.log(0.5), math.log(0.9), math.log(0.8)] + [-9.0] * others[1]

    found = probability(sample(BEFORE + "joy" + AFTER, logprobs))

    assert found == pytest.approx(0.5 * 0.9 * 0.8)


def test_certain_tokens_a_hair_above_have_a_probability_of_one() -> None:
    text = BEFORE + "joy" + AFTER

    assert probability(sample(text, [1e-7] * (len(tokenizer().encode(text).ids) + 1))) == 1.0


@pytest.mark.parametrize(
    "text, reason",
    [
        (BEFORE + "anger" + AFTER, FinishReason.STOP),
        (BEFORE + "joy</answer>", FinishReason.STOP),
        (BEFORE + "joy" + AFTER, FinishReason.LENGTH),
    ],
)
def test_a_malformed_response_has_none(text: str, reason: FinishReason) -> None:
    assert probability(sample(text, reason=reason)) is None


def test_a_stage_1_model_needs_no_confidence() -> None:
    text = BEFORE + "joy</answer>"

    found = probability(sample(text, [-0.25] * (len(tokenizer().encode(text).ids) + 1)), require_confidence=False)

    assert found == pytest.approx(math.exp(-0.75))
