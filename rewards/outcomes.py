"""Responses held against the truth: what every metric is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rewards.correctness import is_correct

_NUMBERS = ("confidence", "share", "best_share", "token_probability")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """n responses, each held against one truth; parallel sequences.

    A response held against several annotators is several outcomes. Raises ValueError where
    lengths differ, a number is neither nan nor in [0, 1], a truth is empty, or a malformed
    response has a confidence.
    A response without a verdict has no outcome; it is `unscored`, by its place among all responses.
    """

    prompt_id: Sequence[str]  # [n]
    task: Sequence[str]  # [n]
    answer: Sequence[str | None]  # [n] None: malformed
    truth: Sequence[str]  # [n] the label, or one annotator's judgement
    confidence: NDArray[np.float64]  # [n] as stated; nan: malformed, or none asked for
    share: NDArray[np.float64]  # [n] annotators' share of the answer, 0 if malformed; nan: counts unknown
    best_share: NDArray[np.float64]  # [n] annotators' share of the majority's candidate; nan: counts unknown
    token_probability: NDArray[np.float64] | None = None  # [n] of the answer's tokens; nan: malformed or unknown
    cause: Sequence[str | None] | None = None  # [n] why it is malformed; None: it is not, or unknown
    matched: NDArray[np.bool_] | None = None  # [n] whether the answer is right, by another rule than being the truth
    response: Sequence[int] | None = None  # [n] which response it is of; None: each is of one of its own
    unscored: Mapping[int, str] = field(default_factory=dict)  # tasks, by place, of responses without an outcome

    def __post_init__(self) -> None:
        numbers = [name for name in _NUMBERS if getattr(self, name) is not None]
        optional = [name for name in ("cause", "matched", "response") if getattr(self, name) is not None]
        for name in ("task", "answer", "truth", *numbers, *optional):
            length = len(getattr(self, name))
            if length != len(self):
                raise ValueError(f"outcomes: got {length} entries of {name}, expected {len(self)}, one a prompt_id")
        for name in numbers:
            _refuse_outside_unit(name, getattr(self, name))
        if not all(truth.strip() for truth in self.truth):
            raise ValueError("outcomes: got an empty truth, expected a label or a judgement for each response")
        if (self.confident & ~self.answered).any():
            raise ValueError("outcomes: got a confidence of a malformed response, expected nan")

    def __len__(self) -> int:
        return len(self.prompt_id)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[n] whether the answer is the truth, or matches it; never for a malformed response."""
        if self.matched is not None:
            return self.matched & self.answered
        pairs = zip(self.answer, self.truth, strict=True)
        return np.array([a is not None and is_correct(a, truth) for a, truth in pairs], dtype=np.bool_)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """[n] whether there is a readable answer."""
        return np.array([answer is not None for answer in self.answer], dtype=np.bool_)

    @property
    def confident(self) -> NDArray[np.bool_]:
        """[n] whether there is a readable confidence."""
        return ~np.isnan(self.confidence)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """[n] whether the annotators' votes are known."""
        return ~np.isnan(self.share) & ~np.isnan(self.best_share)

    @property
    def majority(self) -> NDArray[np.bool_]:
        """[n] whether no candidate has more of the annotators' votes than the answer; False: not, or unknown."""
        most: NDArray[np.bool_] = self.share >= self.best_share  # exact: quotients of whole numbers
        return most

    @property
    def prompt(self) -> list[tuple[str, str]]:
        """[n] which prompt it answers: task and id, as prompts of two tasks may share an id."""
        return list(zip(self.task, self.prompt_id, strict=True))

    @property
    def first_of_response(self) -> NDArray[np.bool_]:
        """[n] true once for each response, however many truths it is held against."""
        first = np.zeros(len(self), dtype=np.bool_)
        first[np.unique(range(len(self)) if self.response is None else self.response, return_index=True)[1]] = True
        return first

    def where(self, mask: NDArray[np.bool_]) -> Outcomes:
        """The outcomes at which mask [n] is true, in order; of responses without outcomes it says nothing."""
        kept = np.flatnonzero(mask)
        return Outcomes(
            prompt_id=[self.prompt_id[i] for i in kept],
            task=[self.task[i] for i in kept],
            answer=[self.answer[i] for i in kept],
            truth=[self.truth[i] for i in kept],
            confidence=self.confidence[kept],
            share=self.share[kept],
            best_share=self.best_share[kept],
            token_probability=None if self.token_probability is None else self.token_probability[kept],
            cause=None if self.cause is None else [self.cause[i] for i in kept],
            matched=None if self.matched is None else self.matched[kept],
            response=None if self.response is None else [self.response[i] for i in kept],
        )


def _refuse_outside_unit(name: str, values: NDArray[np.float64]) -> None:
    outside = values[~(np.isnan(values) | ((values >= 0) & (values <= 1)))]
    if outside.size:
        raise ValueError(f"outcomes: got {name} {outside[0]}, expected nan or a number in [0, 1]")
