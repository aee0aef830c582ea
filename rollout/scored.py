"""From sampled groups to scored ones: raw parts, and where in the tokens each piece of the response is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from configs.schema import Response, Rewards
from rewards.correctness import is_correct
from rewards.parts import Judged, Matcher, Scored, Truth, judge, score
from rollout.prompts import Prompt
from rollout.spans import TokenOffsets, decode_with_offsets, token_span
from rollout.trajectory import FinishReason, Group, Score, Span, Trajectory
from rollout.worker import response_ids

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """A judged response, and where its pieces are in its tokens."""

    judged: Judged
    reasoning: Span | None
    answer: Span | None
    confidence: Span | None


class GroupScorer:
    """Scores trajectories against their group's target. Weights are not its business."""

    def __init__(
        self, tokenizer: Tokenizer, response: Response, rewards: Rewards, matches: Matcher = is_correct
    ) -> None:
        self._tokenizer = tokenizer
        self._response = response
        self._rewards = rewards
        self._matches = matches

    def score(self, group: Group, prompt: Prompt) -> Group:
        """The group with scores. A trajectory whose scoring fails says why and is never trained on.

        What a confidence is scored against may depend on the others of the group, the failed ones left out.
        """
        read: dict[int, _Read] = {}
        failures: dict[int, str] = {}
        for number, trajectory in enumerate(group.trajectories):
            try:
                read[number] = self._read(trajectory, group, prompt)
            except Exception as error:  # a scorer's fault costs one trajectory: logged, counted, shown
                logger.exception("group %d: a response could not be scored", group.group_id)
                failures[number] = f"{type(error).__name__}: {error}"
        parts = score([one.judged for one in read.values()], self._rewards)
        scores = {number: _score(one, made) for (number, one), made in zip(read.items(), parts, strict=True)}
        return replace(
            group,
            trajectories=tuple(
                replace(trajectory, score=scores.get(number), failure=failures.get(number))
                for number, trajectory in enumerate(group.trajectories)
            ),
        )

    def _read(self, trajectory: Trajectory, group: Group, prompt: Prompt) -> _Read:
        if group.target is None:
            raise ValueError(f"prompt {prompt.prompt_id} has no reference to hold answers against")
        sample = trajectory.sample
        judged = judge(
            sample.text,
            Truth(group.target, prompt.candidates, prompt.counts),
            self._response,
            self._rewards,
            self._matches,
            truncated=sample.finish_reason is FinishReason.LENGTH,
        )
        decoded, parsed = decode_with_offsets(self._tokenizer, response_ids(sample)), judged.parsed
        spans = (parsed.reasoning_span, parsed.answer_span, parsed.confidence_span)
        return _Read(judged, *(_tokens(decoded, span) for span in spans))


def _score(read: _Read, scored: Scored) -> Score:
    judged = read.judged
    return Score(
        answer=judged.parsed.answer,
        confidence=judged.parsed.confidence,
        malformed=None if judged.parsed.malformed is None else judged.parsed.malformed.value,
        correct=judged.correct,
        target=scored.target,
        parts=scored.parts,
        reasoning_span=read.reasoning,
        answer_span=read.answer,
        confidence_span=read.confidence,
    )


def _tokens(decoded: TokenOffsets, characters: tuple[int, int] | None) -> Span | None:
    return None if characters is None else token_span(decoded.offsets, *characters)
