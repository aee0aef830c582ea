"""What flows from the engine to the learner. Everything here is immutable.

The unit that moves, is trained on and is written to disk is the `Group`: the responses to
one visit of one prompt, with the prompt's tokens once. `rollout.codec` encodes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why the engine stopped."""

    STOP = "stop"  # the end token, which is the last of the response's tokens
    LENGTH = "length"  # the limit; the response is truncated and holds no end token


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Response tokens [start, end) were sampled under one weight version."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Span:
    """Response tokens [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One response as the engine gave it."""

    tokens: NDArray[np.int32]  # [T] sampled token ids, the end token included
    logprobs: NDArray[np.float32]  # [T] log-probabilities as sampled, natural log, after temperature
    version_spans: tuple[VersionSpan, ...]  # cover [0, T) without gaps
    finish_reason: FinishReason
    text: str  # the tokens decoded, the end token left out
    started: float  # seconds since the epoch
    finished: float  # seconds since the epoch

    @property
    def oldest_version(self) -> int:
        """Weight version of the oldest token."""
        return min(span.version for span in self.version_spans)

    def version_of(self, token: int) -> int:
        """Weight version that a token of [0, T) was sampled under."""
        return next(span.version for span in self.version_spans if span.start <= token < span.end)


@dataclass(frozen=True, slots=True)
class Score:
    """What the reward service made of a sample. Raw: no weight is applied here."""

    answer: str | None  # None: malformed
    confidence: float | None  # in [0, 1]; None: malformed
    malformed: str | None  # the cause, a `rewards.parse.Malformed` value; None: well formed
    correct: float | None  # 1 right, 0 wrong, or a share; None: malformed
    target: float | None  # in [0, 1], what the confidence was scored against; None: malformed
    parts: Mapping[str, float]  # raw reward parts by name, a malformed response has them too
    reasoning_span: Span | None
    answer_span: Span | None
    confidence_span: Span | None


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A sample and its score; `score` is None before scoring, and where the scorer failed."""

    sample: Sample
    score: Score | None = None
    failure: str | None = None  # why there is no score


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """All responses to one visit of a prompt."""

    group_id: int  # number of the admission, unique in a run
    prompt_id: str
    images: tuple[str, ...]  # paths of the prompt's pictures
    prompt_tokens: NDArray[np.int32]  # [P] as the engine saw them, image placeholders expanded
    target: str | None  # the label or the drawn annotator's judgement that the answers are held against
    admitted: float  # seconds since the epoch
    worker: str  # name of the rollout worker
    trajectories: tuple[Trajectory, ...]
    meters: Mapping[str, float] = field(default_factory=dict)  # seconds and counts for the logs

    @property
    def oldest_version(self) -> int:
        """Weight version of the oldest token in the group."""
        return min(t.sample.oldest_version for t in self.trajectories)
