"""From sampled groups to scored ones: raw parts, and where in the tokens each piece of the response is."""

from __future__ import annotations

import logging
from dataclasses import replace

from tokenizers import Tokenizer

from configs.schema import Response, Rewards
from rewards.parts import score_response
from rollout.prompts import Prompt
from rollout.spans import TokenOffsets, decode_with_offsets, token_span
from rollout.trajectory import FinishReason, Group, Score, Span, Trajectory
from rollout.worker import response_ids

logger = logging.getLogger(__name__)


class GroupScorer:
    """Scores trajectories against their group's target. Weights are not its business."""

    def __init__(self, tokenizer: Tokenizer, response: Response, rewards: Rewards) -> None:
        self._tokenizer = tokenizer
        self._response = response
        self._rewards = rewards

    def score(self, group: Group, prompt: Prompt) -> Group:
        """The group with scores. A trajectory whose scoring fails says why and is never trained on."""
        return replace(group, trajectories=tuple(self._scored(t, group, prompt) for t in group.trajectories))

    def _scored(self, trajectory: Trajectory, group: Group, prompt: Prompt) -> Trajectory:
        try:
            return replace(trajectory, score=self._score(trajectory, group, prompt))
        except Exception as error:  # a scorer's fault costs one trajectory: logged, counted, shown
            logger.exception("group %d: a response could not be scored", group.group_id)
            return replace(trajectory, failure=f"{type(error).__name__}: {error}")

    def _score(self, trajectory: Trajectory, group: Group, prompt: Prompt) -> Score:
        if group.target is None:
            raise ValueError(f"prompt {prompt.prompt_id} has no reference to hold answers against")
        sample = trajectory.sample
        made = score_response(
            sample.text,
            truncated=sample.finish_reason is FinishReason.LENGTH,
            target=group.target,
            candidates=prompt.candidates,
            response=self._response,
            rewards=self._rewards,
        )
        decoded = decode_with_offsets(self._tokenizer, response_ids(sample))
        parsed = made.parsed
        return Score(
            answer=parsed.answer,
            confidence=parsed.confidence,
            malformed=None if parsed.malformed is None else parsed.malformed.value,
            correct=made.correct,
            parts=made.parts,
            reasoning_span=_tokens(decoded, parsed.reasoning_span),
            answer_span=_tokens(decoded, parsed.answer_span),
            confidence_span=_tokens(decoded, parsed.confidence_span),
        )


def _tokens(decoded: TokenOffsets, characters: tuple[int, int] | None) -> Span | None:
    return None if characters is None else token_span(decoded.offsets, *characters)
