"""From sampled groups to scored ones: raw parts, and where in the tokens each piece of the response is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from tokenizers import Tokenizer

from configs.schema import Response, Rewards
from rewards.correctness import is_correct
from rewards.parts import Judged, Matcher, MatchError, Scored, Truth, judge, score
from rollout.codec import NAME_CHARACTERS
from rollout.prompts import Prompt
from rollout.scorer_process import UnusableScorer
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
        Raises UnusableScorer where it is the scorer that is at fault, for every response to come.
        """
        tried = list(enumerate(self._tried(group, prompt)))
        read = {number: one for number, one in tried if isinstance(one, _Read)}
        failures = {number: _shown(one) for number, one in tried if isinstance(one, Exception)}
        _log(group, failures)
        parts = score([one.judged for one in read.values()], self._rewards)
        scores = {number: _score(one, made) for (number, one), made in zip(read.items(), parts, strict=True)}
        return replace(
            group,
            trajectories=tuple(
                replace(trajectory, score=scores.get(number), failure=failures.get(number))
                for number, trajectory in enumerate(group.trajectories)
            ),
        )

    def _tried(self, group: Group, prompt: Prompt) -> Iterator[_Read | Exception]:
        """Each trajectory's reading, or what came of the attempt; those that wait for a judge wait together."""
        read = partial(self._try, group=group, prompt=prompt)
        if self._rewards.judge is None:
            yield from map(read, group.trajectories)
            return
        with ThreadPoolExecutor(self._rewards.judge.requests_at_once) as threads:
            yield from threads.map(read, group.trajectories)

    def _try(self, trajectory: Trajectory, group: Group, prompt: Prompt) -> _Read | Exception:
        try:
            return self._read(trajectory, group, prompt)
        except UnusableScorer:
            raise
        except MatchError as error:
            return error
        except Exception as error:  # a fault of ours or of the data's costs one trajectory, and shows where it is
            logger.exception("group %d: a response could not be scored", group.group_id)
            return error

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


def _shown(error: Exception) -> str:
    """The error as a group keeps it: a scorer's text may be of any length, and hold what is no Unicode."""
    return f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:NAME_CHARACTERS]


def _log(group: Group, failures: Mapping[int, str]) -> None:
    """One line a group, however many of its responses failed."""
    if failures:
        causes = "; ".join(dict.fromkeys(failures.values()))
        logger.warning(
            "group %d: %d of %d responses have no score: %s",
            group.group_id,
            len(failures),
            len(group.trajectories),
            causes,
        )


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
