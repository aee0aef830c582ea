"""What voting and abstaining by confidence buy: a finished run on one of its evaluation files.

    python -m benchmarks.what_confidence_buys outputs/words --files unseen --keep outputs/words-buys --against majority
    python -m benchmarks.what_confidence_buys outputs/emoji --keep outputs/emoji-buys

Each prompt is answered once greedily and five times at stage 3's temperature, on `caliber eval`'s own path. Responses
are kept in the folder of `--keep`, and not generated again by the next call. Four ways to an answer and a confidence
are set side by side:

    greedy      the likeliest response, and what it states
    one sample  the first of the five, and what it states
    majority    the answer given most often, and its share of the five (plain self-consistency)
    weighted    the answer with most confidence behind it, and its confidence by `rewards.voting`

Intervals are of 1,000 resamples of the prompts, the same for all ways. Malformed answers are wrong, and kept last. A
threshold for a risk is fitted on a random half of the prompts, one annotator each, and tried on the other, 200 times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.evaluation import evaluate, model_tokenizer
from cluster.finished_model import finished_model
from cluster.metrics_table import aligned
from cluster.predictions import PredictionRow, read_predictions
from cluster.sampling import RolloutWorkers
from cluster.score import Reading, hold
from cluster.stages import connect, read_file
from cluster.voted import ballots_of, sameness, vote_on
from configs.schema import Recipe
from rewards.abstention import Guarantee, guaranteed_threshold
from rewards.bootstrap import LEVEL, RESAMPLES, auroc, resampled_tally
from rewards.outcomes import Outcomes
from rewards.recalibration import cross_fitted, isotonic
from rewards.selective import accuracy_at_coverage, coverage_at_risk
from rewards.tally import Tally
from rewards.voting import majority_vote

Floats = NDArray[np.float64]
PAIRS = (("weighted", "greedy"), ("weighted", "majority"), ("weighted", "one sample"))
RISKS = (0.05, 0.1, 0.2, 0.3)
DELTA = 0.1
SPLITS = 200
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


@dataclass(frozen=True, slots=True)
class Cell:
    """A measure of one way, or its difference between two, and where 95% of the resamples have it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, resampled: Floats) -> Cell:
        """Of [1 + R] values, the sample's own first."""
        low, high = np.nanquantile(resampled[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(resampled[0]), float(low), float(high))

    def show(self, sign: str = "") -> str:
        """As the table has it."""
        return f"{self.value:{sign}.3f} ({self.low:{sign}.3f} to {self.high:{sign}.3f})"


def measured(outcomes: Outcomes, right: NDArray[np.bool_], resamples: int) -> dict[str, Floats]:
    """[1 + R] each measure of outcomes that are right or not [n]."""
    ranked = np.where(outcomes.confident, outcomes.confidence, NO_CONFIDENCE)
    found = {}
    for measures, tally in (
        (ALL, resampled_tally(outcomes.prompt_id, ranked, right, resamples)),
        (CONFIDENT, _confident(resampled_tally(outcomes.prompt_id, ranked, right, resamples))),
    ):
        found |= {name: measure(tally) for name, measure in measures.items()}
    return found


def _confident(tally: Tally) -> Tally:
    stated = tally.values > NO_CONFIDENCE
    return Tally(tally.values[stated], tally.right[..., stated], tally.wrong[..., stated])


@dataclass(frozen=True, slots=True)
class Kept:
    """What thresholds for a risk came to, over the splits of the prompts."""

    risk: float
    found: float  # share of the splits with a threshold that can be vouched for
    coverage: float  # of the other half, mean over all splits; 0 where there is none
    realised: float  # share of wrong answers among what is kept of the other halves; nan: nothing is


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
    return Kept(risk, found / splits, kept / tried, wrong / kept if kept else float("nan"))


def ways(recipe: Recipe, greedy: Sequence[PredictionRow], sampled: Sequence[PredictionRow]) -> dict[str, list[Reading]]:
    """What each way says of each prompt, in their order."""
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

    return {
        "greedy": [voted([row]) for row in greedy],
        "one sample": [voted(rows[:1]) for rows in groups],
        "majority": [majority(rows) for rows in groups],
        "weighted": [voted(rows) for rows in groups],
    }


def held(
    recipe: Recipe, rows: Sequence[PredictionRow], readings: Mapping[str, list[Reading]], draws: int, against: str
) -> dict[str, tuple[Outcomes, NDArray[np.bool_]]]:
    """Each way's outcomes and which are right, the weighted one's recalibrated too.

    Against annotators: `draws` of them for each prompt, the same for all ways.
    """
    by_majority = against == "majority"
    found = {
        way: hold(rows, said, 1 if by_majority else draws, recipe.evaluation.seed) for way, said in readings.items()
    }
    mapped = cross_fitted(found["weighted"], isotonic)
    if mapped is not None:
        found["weighted + isotonic"] = mapped
    return {way: (one, one.majority if by_majority else one.correct) for way, one in found.items()}


async def generate(recipe: Recipe, model: Path, files: Sequence[str], folder: Path, samples: int) -> None:
    """Answer the files' prompts greedily and `samples` times, into two folders each."""
    prompts = {name: read_file(recipe, recipe.data.evaluation[name]) for name in files}
    async with RolloutWorkers(recipe) as workers:
        pool, tokenizer = await workers.holding(str(model)), model_tokenizer(str(model))
        for part, number, temperature in (("greedy", 1, 0.0), ("sampled", samples, recipe.rl.temperature)):
            asked = recipe.evaluation.model_copy(update={"samples_per_prompt": number})
            own = recipe.model_copy(update={"evaluation": asked})
            into = {name: (rows, folder / name / part) for name, rows in prompts.items()}
            await evaluate(own, pool, tokenizer, into, temperature=temperature)


def tell(recipe: Recipe, folder: Path, against: str) -> dict[str, object]:
    """Measure and print what the responses in a folder come to; returns the numbers."""
    greedy, sampled = (read_predictions(folder / part / "predictions.jsonl") for part in ("greedy", "sampled"))
    readings = ways(recipe, greedy, sampled)
    print(f"\n{len(greedy)} prompts of {folder.name}, held against the {against}")
    found = held(recipe, greedy, readings, recipe.evaluation.annotator_draws, against)
    numbers = {way: measured(one, right, RESAMPLES) for way, (one, right) in found.items()}
    apart = {
        f"{one} - {other}": {name: numbers[one][name] - numbers[other][name] for name in numbers[one]}
        for one, other in PAIRS
    }
    cells = {way: {name: Cell.of(values) for name, values in column.items()} for way, column in numbers.items()}
    differences = {pair: {name: Cell.of(values) for name, values in column.items()} for pair, column in apart.items()}
    for columns, sign in ((cells, ""), (differences, "+")):
        rows = [(name, *(column[name].show(sign) for column in columns.values())) for name in [*ALL, *CONFIDENT]]
        print(aligned(list(columns), rows), end="\n\n")
    single = held(recipe, greedy, readings, 1, against)  # else rows would not be independent
    kept = {way: [thresholds(*single[way], risk, SPLITS) for risk in RISKS] for way in ("greedy", "weighted")}
    rows = [
        (way, f"{one.risk:g}", f"{one.found:.2f}", f"{one.coverage:.3f}", f"{one.realised:.3f}")
        for way, ones in kept.items()
        for one in ones
    ]
    print(aligned(["risk asked for", "thresholds found", "coverage", "risk that came out"], rows))
    return {
        **{
            way: {name: asdict(cell) for name, cell in column.items()}
            for way, column in {**cells, **differences}.items()
        },
        "thresholds": {way: [asdict(one) for one in ones] for way, ones in kept.items()},
    }


def main() -> None:
    """Generate what is missing, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run's folder, or a model's directory in it")
    parser.add_argument("overrides", nargs="*", help="of the recipe's settings")
    parser.add_argument("--files", nargs="+", help="names of evaluation files of its recipe (default: all)")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the responses")
    parser.add_argument("--samples", type=int, default=5, help="that vote (default: %(default)s)")
    parser.add_argument("--against", choices=["annotators", "majority"], default="annotators", help="what is right")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    model, recipe = finished_model(given.model, overrides=given.overrides)
    files = given.files or list(recipe.data.evaluation)
    if missing := [name for name in files if not (given.keep / name / "sampled" / "metrics.json").exists()]:
        connect(recipe.name)
        asyncio.run(generate(recipe, model, missing, given.keep, given.samples))
    numbers = {name: tell(recipe, given.keep / name, given.against) for name in files}
    if given.json is not None:
        given.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
