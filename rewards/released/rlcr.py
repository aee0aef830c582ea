"""RLCR's reward for one response, number for number as its released training code computes it.

    well formed   format/2 + i/2 + (1 - (i - c)^2)/2     i: 1 if right, else 0; c: the stated confidence
    malformed     0

arXiv 2507.16806. Tags in the order of a `Form`, from `</think>` to the text's end with nothing but white space between
them; `<think>` itself need not be there. What stands between a tag and its closing one is free, further tags
included, and the last answer and the last confidence count. 0 and 1 are confidences, and so is nan, whose Brier part
and total are NaN.

Not reproduced: the released rule for labels of sources other than hotpot, which is math_verify's, and that is no
dependency of Caliber. A `matches` that calls it has the released numbers there (labels go to its `verify` as they are,
so that words are never right); the default compares every label as hotpot's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from rewards.parse import CharSpan
from rewards.released.tags import last

Matches = Callable[[str, object], bool]  # whether an answer, as it stands between its tags, is right by a label

NEARLY = 0.01  # how far from 0 or 1 a confidence counts as one of them

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Form(StrEnum):
    """The tags a response must have, in order, by the released names."""

    TA = "ta"  # a confidence is not asked for, but read if the reasoning holds one
    TAC = "tac"
    TABC = "tabc"
    TBAC = "tbac"


_TAGS: Mapping[Form, tuple[str, ...]] = {
    Form.TA: ("think", "answer"),
    Form.TAC: ("think", "answer", "confidence"),
    Form.TABC: ("think", "answer", "analysis", "confidence"),
    Form.TBAC: ("think", "analysis", "answer", "confidence"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RlcrReward:
    """The raw parts by the released names, their total, and where they were read."""

    format: float  # 1 well formed, 0 malformed
    accuracy: float  # 0 or 1; 0 malformed
    brier: float  # 1 - (i - c)^2; 0 malformed or without a confidence; nan where the confidence is
    total: float

    # Monitored, not trained on; read whatever the format.
    mean_confidence: float  # clipped to [0, 1]; 0 where there is none, none readable, or nan
    confidence_one_or_zero: float  # 1 where that is within 0.01 of 0 or 1 and something is stated, readable or not

    # Contents of the last of each tag; None where there is none, whether well formed or not.
    answer_span: CharSpan | None
    confidence_span: CharSpan | None


def hotpot_match(answer: str, label: object) -> bool:
    """Whether the two are the same without case, ASCII punctuation, articles and surplus white space.

    Two that have nothing else are the same: "a" is "the". Raises TypeError for a label that is not text.
    """
    if not isinstance(label, str):
        raise TypeError(f"got the label {label!r:.200}, expected text; other labels need a `matches` of their own")
    return _normalised(answer) == _normalised(label)


def rlcr_reward(response: str, label: object, form: str = Form.TABC, matches: Matches = hotpot_match) -> RlcrReward:
    """The reward of a response held against its label; reading it takes time linear in the response.

    Raises TypeError for a response that is not text, ValueError for a form that is not one.
    """
    if not isinstance(response, str):
        raise TypeError(f"got a response of type {type(response).__name__}, expected text: {response!r:.200}")
    if form not in _TAGS:
        raise ValueError(f"got the form {form!r}, expected one of {', '.join(_TAGS)}")
    tags = _TAGS[Form(form)]
    answer, confidence = last(response, "answer"), last(response, "confidence")
    stated = _stated(response, confidence)
    well_formed = _has_form(response, tags) and ("confidence" not in tags or _is_allowed(stated))
    accuracy = brier = 0.0
    if well_formed:
        accuracy = float(matches(response[slice(*answer)] if answer else "", label))
        brier = _brier(accuracy, stated)
    shown = 0.0 if stated is None else max(0.0, min(stated, 1.0))  # in this order nan becomes 0
    says_something = confidence is not None and confidence[0] < confidence[1]
    return RlcrReward(
        format=float(well_formed),
        accuracy=accuracy,
        brier=brier,
        total=0.5 * well_formed + 0.5 * accuracy + 0.5 * brier,
        mean_confidence=shown,
        confidence_one_or_zero=float(says_something and (abs(shown - 1) < NEARLY or abs(shown) < NEARLY)),
        answer_span=answer,
        confidence_span=confidence,
    )


def _has_form(text: str, tags: Sequence[str]) -> bool:
    r"""Whether `.*?</a>\s*<b>.*?</b>\s*<c>.*?</c>\s*\Z` matches, for tags a, b, c.

    Each seam is taken at its first place, which leaves the most room for those behind it; so nothing is read twice.
    """
    if not text.rstrip().endswith(f"</{tags[-1]}>"):
        return False
    position = 0
    for left, right in pairwise(tags):
        seam = re.compile(rf"</{left}>\s*<{right}>").search(text, position)
        if seam is None:
            return False
        position = seam.end()
    return True


def _stated(text: str, span: CharSpan | None) -> float | None:
    """The number between the tags, where `float` reads one."""
    if span is None:
        return None
    try:
        return float(text[slice(*span)])
    except ValueError:
        return None


def _is_allowed(stated: float | None) -> bool:
    return stated is not None and not (stated < 0 or stated > 1)  # nan is neither


def _brier(accuracy: float, stated: float | None) -> float:
    if stated is None:
        return 0.0
    try:
        return 1 - (accuracy - stated) ** 2
    except OverflowError:  # beyond 1e154, which only `ta` lets through; 0 there as released
        return 0.0


def _normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())
