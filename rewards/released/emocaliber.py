"""EmoCaliber's reward for one response, number for number as its released training code computes it.

    well formed   1 + i + 2 * (i * ln c + (1 - i) * ln(1 - c))    i: 1 if right, else 0; c: the stated confidence
    malformed     -5

For comparison with what was published, not for new training: it has no floor, so that a wrong answer with
c > 0.950213 earns less than a malformed one, and it pays for answering wrong on purpose (see `rewards.mixing`).

How a response is read differs from `rewards.parse` in about every respect. The first `<think>`, `<answer>` and
`<confidence>` count, in any order, nested, and inside the reasoning too, with any text around them. The reasoning must
hold each element, empty or not: the released code's five, or those of a recipe whose responses have others, so that the
reward can be compared on it. `float` decides what a number is. An answer loses its ASCII punctuation and must then
be the label in one word; the label is only lower-cased, so one of several words or with a hyphen is never answered
right. One thing differs from the released code: a label that is not text is refused for malformed responses too.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.parse import CharSpan
from rewards.released.tags import first

ELEMENTS = ("element", "human", "context", "interaction", "analysis")  # the released ones
MALFORMED_SCORE = -5.0

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmoCaliberReward:
    """The raw parts by the released names, their total, and where they were read."""

    format_score: float  # 1 well formed, 0 malformed
    confidence_score: float  # 2 ln of what the truth was given; -5 malformed
    correctness: float  # 0 or 1; 0 malformed
    brier_score: float  # -(c - i)^2; -1 malformed
    confidence: float  # as stated, in (0, 1); 1 malformed
    total: float

    # Contents as they stand in the text, not stripped; None where the tag was not found, whether well formed or not.
    think_span: CharSpan | None
    answer_span: CharSpan | None
    confidence_span: CharSpan | None

    @property
    def well_formed(self) -> bool:
        """Whether the format was right."""
        return self.format_score == 1.0


def emocaliber_reward(response: str, label: str, elements: Sequence[str] = ELEMENTS) -> EmoCaliberReward:
    """The reward of a response held against its label, in time linear in the response.

    `elements` are the tags that the reasoning must hold, in any order; none are required where there are none.
    Raises TypeError where either is not text.
    """
    for name, given in (("response", response), ("label", label)):
        if not isinstance(given, str):
            raise TypeError(f"got a {name} of type {type(given).__name__}, expected text: {given!r:.200}")
    think, answer, confidence = (first(response, tag) for tag in ("think", "answer", "confidence"))
    correctness, stated = 0.0, None
    if think and answer and confidence and _holds(elements, response[slice(*think)]):
        correctness = float(_is_right(response[slice(*answer)], label))
        stated = _stated(response[slice(*confidence)])
    if stated is None:
        return EmoCaliberReward(
            format_score=0.0,
            confidence_score=MALFORMED_SCORE,
            correctness=0.0,
            brier_score=-1.0,
            confidence=1.0,
            total=MALFORMED_SCORE,
            think_span=think,
            answer_span=answer,
            confidence_span=confidence,
        )
    confidence_score = 2 * math.log(stated if correctness else 1 - stated)
    return EmoCaliberReward(
        format_score=1.0,
        confidence_score=confidence_score,
        correctness=correctness,
        brier_score=-((stated - correctness) ** 2),
        confidence=stated,
        total=1 + confidence_score + correctness,
        think_span=think,
        answer_span=answer,
        confidence_span=confidence,
    )


def can_be_right(label: str) -> bool:
    """Whether any answer is right by this reading: not for a label of several words, or with punctuation."""
    return _is_right(label, label)


def _holds(elements: Sequence[str], reasoning: str) -> bool:
    return all(first(reasoning, element) is not None for element in elements)


def _is_right(answer: str, label: str) -> bool:
    return answer.translate(_WITHOUT_PUNCTUATION).lower().split() == [label.lower()]


def _stated(content: str) -> float | None:
    """The confidence, where `float` reads one inside (0, 1)."""
    try:
        confidence = float(content.strip())  # takes off \x1c to \x1f too, which `float` alone does not
    except ValueError:
        return None
    return confidence if 0 < confidence < 1 else None
