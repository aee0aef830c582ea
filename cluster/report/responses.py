"""A sampled response as people look at it, whatever wrote it: stage 3's rollouts, or an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from configs.schema import RewardWeights
from rewards.parse import CharSpan
from rollout.prompts import Prompt
from rollout.trajectory import VersionSpan

RIGHT = 0.5  # from this correctness on an answer counts as right


def question(prompt: Prompt) -> str:
    """What a prompt says in all its turns, without its pictures' places."""
    return "\n\n".join(message.text.replace("<image>", "").strip() for message in prompt.messages)


@dataclass(frozen=True, slots=True)
class Worth:
    """What a response of stage 3 earned."""

    parts: Mapping[str, float]  # raw, by name
    weights: RewardWeights  # of the first step that it can have been trained in
    total: float  # what `rewards.mixing.combine` makes of both


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """One response, what it says, and what it was worth."""

    source: str  # where it was sampled: "rollouts", or an evaluation such as "stage 3, seen"
    file: str  # of data, as the recipe names it: a prompt's id is unique in one
    group: str  # responses to one visit of a prompt share it, within their source
    prompt_id: str
    target: str | None  # what the answer was held against; None: several annotators, or unknown
    text: str
    answer: str | None  # None: malformed, or without a score
    confidence: float | None  # in [0, 1]; None: malformed, or none was asked for
    correct: float | None  # in [0, 1]; None: malformed, or nobody judged it
    malformed: str | None  # the cause, a `rewards.parse.Malformed` value
    answer_span: CharSpan | None  # characters of the text
    confidence_span: CharSpan | None
    failure: str | None = None  # why it has no score
    worth: Worth | None = None  # None: an evaluation's, or without a score
    versions: tuple[VersionSpan, ...] = ()  # weight versions, by tokens; () where they are not kept
    suspect: bool = False  # by `rewards.suspicion.sabotage_suspects`
    majority_total: float | None = None  # of a suspect: what its group's most frequent answer earned, on average

    @property
    def asked(self) -> tuple[str, str]:
        """Which prompt it answers: its file and its id."""
        return self.file, self.prompt_id

    @property
    def right(self) -> bool:
        """Whether its answer is right, as far as anybody judged it."""
        return self.correct is not None and self.correct >= RIGHT

    @property
    def wrong(self) -> bool:
        """Whether it has an answer that is judged wrong."""
        return self.correct is not None and self.correct < RIGHT
