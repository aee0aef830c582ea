"""From a group's responses to their raw reward parts. No weight is applied here (see `rewards.mixing`).

Each response is judged by itself; then the group says what each confidence is scored against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from configs.choices import Reading, Reference
from configs.response import Response
from configs.reward_settings import Rewards, TargetMix
from rewards.correctness import is_correct, normalise_answer
from rewards.parse import ParsedResponse, parse
from rewards.readings import read_released
from rewards.scoring import Floats, Scorer

PARTS = ("correctness", "calibration", "format")  # the fields of configs.reward_settings.RewardWeights


class MatchError(RuntimeError):
    """A matcher came to no verdict, for no fault of the answer or the reference: costs one response, and is counted."""


class Matcher(Protocol):
    """Says whether an answer is right."""

    def __call__(self, answer: str, reference: str, /) -> float:
        """1 if the answer is what the reference says, 0 if not, or how much of it, in [0, 1].

        Raises MatchError where it cannot tell, ValueError for a reference that no answer can be held against.
        """


@dataclass(frozen=True, slots=True)
class Truth:
    """What a prompt's answers are held against."""

    target: str  # the label, or one annotator's judgement
    candidates: Sequence[str]  # () where any answer goes
    counts: Mapping[str, int]  # annotators' votes by candidate; {} where unknown


@dataclass(frozen=True, slots=True)
class Judged:
    """A response read and held against the truth."""

    parsed: ParsedResponse
    correct: float | None  # in [0, 1]; None: malformed, so there is no answer to judge
    share: float | None  # annotators' share of the answer; None: malformed, or not asked for


@dataclass(frozen=True, slots=True)
class Scored:
    """A response's raw parts, and what its confidence was scored against."""

    parts: Mapping[str, float]  # by the names in PARTS, for malformed responses too
    target: float | None  # in [0, 1]; None: malformed


def judge(
    text: str, truth: Truth, form: Response, rewards: Rewards, matches: Matcher, *, truncated: bool = False
) -> Judged:
    """Read a response and hold it against the truth.

    Raises ValueError for a truth that no answer can match or that lacks the votes the mix asks for, and for a
    correctness that is not in [0, 1].
    """
    _refuse_unreachable(truth)
    if not truth.counts and (rewards.reference is Reference.SHARES or rewards.target.annotators):
        raise ValueError(
            "the mix asks for annotators' shares and the row has no counts; add them, or set rewards.reference and "
            "rewards.target to what the rows have"
        )
    if rewards.reading is not Reading.STRICT:
        return Judged(*read_released(text, truth.target, rewards.reading, form.reasoning_elements), None)
    parsed = parse(text, form, candidates=truth.candidates, truncated=truncated)
    if parsed.answer is None or parsed.confidence is None:
        return Judged(parsed, None, None)
    asked = rewards.reference is Reference.SHARES or rewards.target.annotators > 0
    share = agreement(parsed.answer, truth.counts, matches) if asked else None
    correct = share if rewards.reference is Reference.SHARES else _in_unit(matches(parsed.answer, truth.target))
    return Judged(parsed, correct, share)


def score(judged: Sequence[Judged], rewards: Rewards) -> list[Scored]:
    """Raw parts of a group's judged responses: correctness, calibration by the scoring rule, format 1.

    A malformed response gets what `rewards.malformed` says: by default the least a well-formed one can get of
    every part. So whatever the weights, no well-formed response can be worth less.
    """
    scorer = Scorer(rewards.scoring_rule, rewards.log_clip)
    stated = _array([one.parsed.confidence for one in judged])
    correct, share = _array([one.correct for one in judged]), _array([one.share for one in judged])
    answers = [normalise_answer(one.parsed.answer or "") for one in judged]
    targets = _targets(answers, correct, share, rewards.target)
    well_formed = ~np.isnan(targets)
    calibration = np.full(len(judged), np.nan)
    calibration[well_formed] = scorer(stated[well_formed], targets[well_formed])
    return [
        Scored(_parts(float(correct[i]), float(calibration[i]), 1.0), float(targets[i]))
        if well_formed[i]
        else Scored(malformed_parts(rewards), None)
        for i in range(len(judged))
    ]


def malformed_parts(rewards: Rewards) -> dict[str, float]:
    """Raw parts of a malformed response."""
    given = rewards.malformed
    lowest = Scorer(rewards.scoring_rule, rewards.log_clip).range.lowest
    return _parts(0.0, lowest if given.calibration is None else given.calibration, given.format)


def _parts(correctness: float, calibration: float, form: float) -> dict[str, float]:
    return dict(zip(PARTS, (correctness, calibration, form), strict=True))


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _targets(answers: Sequence[str], correct: Floats, share: Floats, mix: TargetMix) -> Floats:
    """[G] what each confidence is scored against; nan where `correct` [G] is, for malformed responses."""
    well_formed = ~np.isnan(correct)
    targets = mix.outcome * correct
    if mix.annotators:
        targets += mix.annotators * share
    if mix.same_answer and well_formed.any():
        _, of = np.unique(answers, return_inverse=True)
        right = np.bincount(of[well_formed], weights=correct[well_formed], minlength=of.max() + 1)
        given = np.bincount(of[well_formed], minlength=of.max() + 1)
        targets += mix.same_answer * (right / np.maximum(given, 1))[of]
    if mix.group:
        targets += mix.group * np.nansum(correct) / max(len(correct), 1)  # a malformed response is not right
    return np.clip(targets, 0.0, 1.0)  # shares of one may add up to a little more, by rounding


def agreement(answer: str, counts: Mapping[str, int], matches: Matcher) -> float:
    """Share of the annotators that agree with the answer, in [0, 1], by the matcher's degrees."""
    agreeing = sum(votes * _in_unit(matches(answer, candidate)) for candidate, votes in counts.items() if votes)
    return agreeing / sum(counts.values())


def _in_unit(correct: float) -> float:
    if not 0 <= correct <= 1:  # also for nan
        raise ValueError(f"rewards.correctness gave {correct!r}, expected a number in [0, 1]; mend the scorer")
    return float(correct)


def _refuse_unreachable(truth: Truth) -> None:
    if not truth.target.strip() or (
        truth.candidates and not any(is_correct(c, truth.target) for c in truth.candidates)
    ):
        raise ValueError(
            f"got the target {truth.target!r}, expected one of the candidates {list(truth.candidates)} (any visible "
            "text where there are none): no answer could be right; mend the row's reference"
        )
