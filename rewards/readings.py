"""Responses read as the released codes read them: for the presets that are compared with, and for nothing else.

EmoCaliber's code wants five reasoning elements. It is given the recipe's own instead, which by default are the same: on
a recipe with others every response would be malformed, and nothing could be compared. RLCR's code wants none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from configs.choices import Reading
from rewards.parse import Malformed, ParsedResponse
from rewards.released.emocaliber import EmoCaliberReward, can_be_right, emocaliber_reward
from rewards.released.rlcr import Form, RlcrReward, rlcr_reward


def read_released(
    text: str, target: str, reading: Reading, elements: Sequence[str]
) -> tuple[ParsedResponse, float | None]:
    """What a response says, and whether it is right: 1, 0, or None where it is malformed.

    `elements` are the recipe's `response.reasoning_elements`.
    Raises ValueError for a response whose released reward is no number.
    """
    made = _made(text, target, reading, elements)
    if isinstance(made, EmoCaliberReward):
        well_formed, correct, confidence = made.well_formed, made.correctness, made.confidence
        reasoning = made.think_span
    else:
        well_formed, correct, confidence = made.format == 1.0, made.accuracy, made.mean_confidence
        reasoning = None
    if not well_formed:
        return ParsedResponse(Malformed.NOT_AS_RELEASED), None
    if not math.isfinite(made.total):
        stated = text[slice(*made.confidence_span or (0, 0))]
        raise ValueError(f"got the confidence {stated!r}, which the released code takes and whose reward is nan")
    answer = target if correct else text[slice(*made.answer_span or (0, 0))].strip()
    parsed = ParsedResponse(
        malformed=None,
        reasoning=None if reasoning is None else text[slice(*reasoning)],
        answer=answer,
        confidence=confidence,
        reasoning_span=reasoning,
        answer_span=made.answer_span,
        confidence_span=made.confidence_span,
    )
    return parsed, correct


def released_parts(text: str, target: str, reading: Reading, elements: Sequence[str]) -> dict[str, float | None]:
    """The reward's parts by the released code's names, nan as None; empty for the strict reading."""
    if reading is Reading.STRICT:
        return {}
    parts = asdict(_made(text, target, reading, elements))
    return {name: value if math.isfinite(value) else None for name, value in parts.items() if isinstance(value, float)}


def answerable(label: str, reading: Reading) -> bool:
    """Whether a response can be right about it, as the reading reads."""
    return reading is not Reading.EMOCALIBER or can_be_right(label)


def _made(text: str, target: str, reading: Reading, elements: Sequence[str]) -> EmoCaliberReward | RlcrReward:
    if reading is Reading.EMOCALIBER:
        return emocaliber_reward(text, target, elements)
    return rlcr_reward(text, target, Form.TAC)
