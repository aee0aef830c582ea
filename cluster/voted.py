"""What the responses to one prompt say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.score import Reading
from configs.schema import Recipe
from rewards.matching import sameness
from rewards.parse import parse
from rewards.voting import Ballot, Vote, confidence_vote
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, Group


@dataclass(frozen=True, slots=True)
class Voted:
    """The responses to a prompt, and their vote."""

    vote: Vote | None  # None: no response is well formed
    response: str  # the first that gives the answer; where there is none, the first
    samples: int
    malformed: tuple[str, ...]  # why, of those that are

    @property
    def reading(self) -> Reading:
        """What it says, as a single response would."""
        if self.vote is None:
            return Reading(None, np.nan, cause=self.malformed[0])
        return Reading(self.vote.answer, self.vote.confidence)


def vote_of(prompt: Prompt, group: Group, recipe: Recipe) -> Voted:
    """What the group of a prompt's responses comes to."""
    samples = [trajectory.sample for trajectory in group.trajectories]
    texts = [(sample.text, sample.finish_reason is FinishReason.LENGTH) for sample in samples]
    return vote_on(texts, prompt.candidates, recipe)


def vote_on(responses: Sequence[tuple[str, bool]], candidates: Sequence[str], recipe: Recipe) -> Voted:
    """The same of texts, each with whether it was cut by the length limit; at least one."""
    ballots, given, malformed = ballots_of(responses, candidates, recipe)
    if not ballots:
        return Voted(None, responses[0][0], len(responses), malformed)
    vote = confidence_vote(ballots, len(candidates), sameness(recipe.rewards.correctness))
    return Voted(vote, given[vote.first], len(responses), malformed)


def ballots_of(
    responses: Sequence[tuple[str, bool]], candidates: Sequence[str], recipe: Recipe
) -> tuple[list[Ballot], list[str], tuple[str, ...]]:
    """What the well-formed ones say, their texts, and why the others are malformed."""
    ballots, given, malformed = [], [], []
    for text, cut in responses:
        parsed = parse(text, recipe.response, candidates=candidates, truncated=cut)
        if parsed.answer is not None and parsed.confidence is not None:
            ballots.append(Ballot(parsed.answer, parsed.confidence))
            given.append(text)
        elif parsed.malformed is not None:
            malformed.append(parsed.malformed.value)
    return ballots, given, tuple(malformed)
