"""Ways to an answer and a confidence from the same responses, and what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cluster.predictions import PredictionRow
from cluster.score import Reading, hold
from cluster.voted import ballots_of, vote_on
from configs.schema import Recipe
from rewards.abstention import Guarantee, guaranteed_threshold
from rewards.bootstrap import LEVEL, Interval, auroc, resampled_tally
from rewards.matching import sameness
from rewards.outcomes import Outcomes
from rewards.recalibration import cross_fitted, isotonic
from rewards.selective import accuracy_at_coverage, coverage_at_risk
from rewards.tally import Tally
from rewards.voting import majority_vote

Floats = NDArray[np.float64]
DELTA = 0.1
NO_CONFIDENCE = -1.0  # of a malformed answer: kept after all others


def brier(tally: Tally) -> Floats:
    """[...] mean squared distance of the confidence from the outcome, of [..., V] counts."""
    return (tally.right * (1 - tally.values) ** 2 + tally.wrong * tally.values**2).sum(-1) / tally.stated.sum(-1)


ALL: Mapping[str, Callable[[Tally], Floats]] = {  # of all answers, the malformed last
    "accuracy": lambda tally: accuracy_at_coverage(tally, 1.0),
    "accuracy of the surest 80%": lambda tally: accuracy_at_coverage(tally, 0.8),
    "accuracy of the surest half": lambda tally: accuracy_at_coverage(tally, 0.5),
    "coverage at risk 0.1": lambda tally: coverage_at_risk(tally, 0.1),
    "coverage at risk 0.2": lambda tally: coverage_at_risk(tally, 0.2),
}
CONFIDENT: Mapping[str, Callable[[Tally], Floats]] = {"Brier score": brier, "AUROC": auroc}  # of those that state one


def interval(resampled: Floats) -> Interval:
    """Of [1 + R] values, the sample's own first."""
    low, high = np.nanquantile(resampled[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(resampled[0]), float(low), float(high))


def measured(outcomes: Outcomes, right: NDArray[np.bool_], resamples: int) -> dict[str, Floats]:
    """[1 + R] each measure of outcomes that are right or not [n]."""
    ranked = np.where(outcomes.confident, outcomes.confidence, NO_CONFIDENCE)
    everything = resampled_tally(outcomes.prompt_id, ranked, right, resamples)
    stated = everything.values > NO_CONFIDENCE
    confident = Tally(everything.values[stated], everything.right[..., stated], everything.wrong[..., stated])
    return {
        **{name: measure(everything) for name, measure in ALL.items()},
        **{name: measure(confident) for name, measure in CONFIDENT.items()},
    }


@dataclass(frozen=True, slots=True)
class Kept:
    """What thresholds for a risk came to, over the splits of the prompts."""

    risk: float
    found: float  # share of the splits with a threshold that can be vouched for
    coverage: float  # of the other half, mean over all splits; 0 where there is none
    realised: float | None  # share of wrong answers among what is kept of the other halves; None: nothing is


def thresholds(outcomes: Outcomes, right: NDArray[np.bool_], risk: float, splits: int) -> Kept:
    """Fit on half of the prompts, try on the other."""
    prompts, prompt = np.unique(np.array(outcomes.prompt_id), return_inverse=True)
    rng, kept, wrong, tried, found = np.random.default_rng(0), 0, 0, 0, 0
    for _ in range(splits):
        fits = (rng.permutation(len(prompts)) % 2 == 0)[prompt]
        threshold = guaranteed_threshold(outcomes.confidence[fits], right[fits], Guarantee(risk, DELTA))
        tried += int((~fits).sum())
        if threshold is not None:
            found += 1
            taken = ~fits & (outcomes.confidence > threshold.above)
            kept, wrong = kept + int(taken.sum()), wrong + int((taken & ~right).sum())
    return Kept(risk, found / splits, kept / tried, wrong / kept if kept else None)


def ways(recipe: Recipe, greedy: Sequence[PredictionRow], sampled: Sequence[PredictionRow]) -> dict[str, list[Reading]]:
    """What each way says of each prompt, in their order; a vote is left out where there is one response to each."""
    groups = [list(rows) for _, rows in groupby(sampled, key=lambda row: row.prompt_id)]
    same = sameness(recipe.rewards.correctness)

    def voted(rows: Sequence[PredictionRow]) -> Reading:
        return vote_on([(row.response, row.truncated) for row in rows], rows[0].candidates, recipe).reading

    def majority(rows: Sequence[PredictionRow]) -> Reading:
        texts = [(row.response, row.truncated) for row in rows]
        ballots, _, malformed = ballots_of(texts, rows[0].candidates, recipe)
        if not ballots:
            return Reading(None, np.nan, cause=malformed[0])
        vote = majority_vote(ballots, same)
        return Reading(vote.answer, vote.confidence)

    found = {"greedy": [voted([row]) for row in greedy]} if greedy else {}
    found["one response"] = [voted(rows[:1]) for rows in groups]
    if len(groups) < len(sampled):
        found["majority"] = [majority(rows) for rows in groups]
        found["weighted"] = [voted(rows) for rows in groups]
    return found


def held(
    recipe: Recipe, rows: Sequence[PredictionRow], readings: Mapping[str, list[Reading]], draws: int, against: str
) -> dict[str, tuple[Outcomes, NDArray[np.bool_]]]:
    """Each way's outcomes and which are right, the last one's recalibrated too; `rows` are one of each prompt.

    Against annotators: `draws` of them for each prompt, the same for all ways.
    """
    by_majority = against == "majority"
    found = {
        way: hold(rows, said, 1 if by_majority else draws, recipe.evaluation.seed) for way, said in readings.items()
    }
    last = list(found)[-1]
    mapped = cross_fitted(found[last], isotonic)
    if mapped is not None:
        found[f"{last} + isotonic"] = mapped
    return {way: (one, one.majority if by_majority else one.correct) for way, one in found.items()}
