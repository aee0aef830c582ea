"""The matcher that a recipe names, with the process or the connections it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from cluster.remote_judge import RemoteJudge
from configs.derive import service_problems
from configs.schema import Reading, Recipe, Reference, Rewards, RewardService
from rewards.matching import BUILT_IN
from rewards.parts import Matcher
from rewards.readings import answerable
from rollout.prompts import Prompt
from rollout.readers import DataError
from rollout.scorer_process import ScorerProcess


@contextmanager
def opened(rewards: Rewards, service: RewardService) -> Iterator[Matcher]:
    """What `rewards.correctness` names. Its process and its connections end with the context.

    Raises UnusableScorer for a scorer that cannot be imported or made, ValueError for a judge without its token.
    """
    if rewards.judge is not None:
        with closing(RemoteJudge(rewards.judge)) as judge:
            yield judge
    elif rewards.own_scorer:
        name, seconds, gib = rewards.correctness, service.seconds_per_response, service.memory_gib_per_scorer
        with closing(ScorerProcess(name, seconds, gib)) as scorer:
            yield scorer
    else:
        yield BUILT_IN[rewards.correctness]


def refuse_unusable(recipe: Recipe, prompts: Iterable[Prompt]) -> None:
    """Try the matcher before any model trains, and hold the references of stage 3's prompts against it.

    A scorer is made once, in its process, and asked nothing; to a judge nothing is sent. Raises what `opened` raises,
    and DataError with every reference that a built-in matcher cannot read, or every row that lacks the annotators'
    counts the mix asks for, or a row with so many references that its group may take longer than a group may.
    """
    prompts, rewards = list(prompts), recipe.rewards
    if rewards.reference is Reference.SHARES or rewards.target.annotators:
        _refuse_uncounted(recipe, prompts)
        _refuse_slow(recipe, prompts)
    by_votes = rewards.reference is not Reference.LABEL or rewards.target.annotators > 0
    refuse_unreadable(recipe, recipe.data.stage3, prompts, by_votes=by_votes)


def refuse_unreadable(recipe: Recipe, file: str, prompts: Iterable[Prompt], *, by_votes: bool) -> None:
    """Try the matcher, and hold against it the references of a file's prompts: `by_votes` what annotators voted for.

    Raises what `opened` raises, and DataError with every reference that a built-in matcher cannot read.
    """
    with opened(recipe.rewards, recipe.reward_service) as matches:
        if recipe.rewards.correctness not in BUILT_IN:
            return
        problems = [
            f"{file}: prompt {prompt.prompt_id}: {error}"
            for prompt in prompts
            for reference in _references(prompt, by_votes=by_votes)
            if (error := _fault(matches, reference, recipe.rewards.reading))
        ]
    if problems:
        raise DataError(problems, recipe.data.errors_shown)


def _refuse_uncounted(recipe: Recipe, prompts: Iterable[Prompt]) -> None:
    asks = "rewards.reference: shares and rewards.target.annotators ask for them"
    problems = [
        f"{recipe.data.stage3}: prompt {prompt.prompt_id} has no counts of annotators, and {asks}"
        for prompt in prompts
        if not prompt.counts
    ]
    if problems:
        raise DataError(problems, recipe.data.errors_shown)


def _refuse_slow(recipe: Recipe, prompts: Sequence[Prompt]) -> None:
    most = max(prompts, key=_voted, default=None)
    if most is None:
        return
    others = 0 if recipe.rewards.reference is Reference.SHARES else 1  # the label, or the annotator that was drawn
    problems = [
        f"{recipe.data.stage3}: prompt {most.prompt_id} has votes for {_voted(most)} candidates: {problem}"
        for problem in service_problems(recipe, _voted(most) + others)
    ]
    if problems:
        raise DataError(problems, recipe.data.errors_shown)


def _voted(prompt: Prompt) -> int:
    return sum(votes > 0 for votes in prompt.counts.values())


def _references(prompt: Prompt, *, by_votes: bool) -> Iterable[str]:
    """Every text that an answer may be held against."""
    if prompt.counts and by_votes:
        return [candidate for candidate, votes in prompt.counts.items() if votes]
    return [] if prompt.label is None else [prompt.label]


def _fault(matches: Matcher, reference: str, reading: Reading) -> ValueError | None:
    if not answerable(reference, reading):
        return ValueError(
            f"by rewards.reading {reading} no answer is right about {reference!r}: it wants one word without "
            "punctuation; rename the label and its candidates, or set the reading to strict"
        )
    try:
        matches("", reference)
    except ValueError as error:
        return error
    return None
