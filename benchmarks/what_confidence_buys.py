"""What voting and abstaining by confidence buy: a finished run on one of its evaluation files.

    python -m benchmarks.what_confidence_buys outputs/words --files unseen --against majority --keep outputs/words-buys
    python -m benchmarks.what_confidence_buys outputs/emoji

With `--keep` each prompt is answered once greedily and five times at stage 3's temperature, on `caliber eval`'s own
path; responses are kept in that folder, and not generated again by the next call. Without, the responses are those of
the run's own evaluation, and nothing is generated. Ways to an answer and a confidence are set side by side:

    greedy        the likeliest response, and what it states; with --keep alone
    one response  the first of those sampled, and what it states
    majority      the answer given most often, and its share of the samples (plain self-consistency)
    weighted      the answer with most confidence behind it, and its confidence by `rewards.voting`

Intervals are of 1,000 resamples of the prompts, the same for all ways. Malformed answers are wrong, and kept last. A
threshold for a risk is fitted on a random half of the prompts, one annotator each, and tried on the other, 200 times.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import Report
from benchmarks.what_confidence_buys_measures import ALL, CONFIDENT, held, interval, measured, thresholds, ways
from cluster.evaluation import evaluate, model_tokenizer
from cluster.finished_model import finished_model
from cluster.metrics_table import UNDEFINED, aligned
from cluster.predictions import PredictionRow, read_predictions
from cluster.sampling import RolloutWorkers
from cluster.stages import connect, read_file
from configs.schema import Recipe
from rewards.bootstrap import RESAMPLES, Interval

PAIRS = (("weighted", "greedy"), ("weighted", "one response"), ("weighted", "majority"))
RISKS = (0.05, 0.1, 0.2, 0.3)
SPLITS = 200


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


def tell(
    recipe: Recipe, name: str, greedy: Sequence[PredictionRow], sampled: Sequence[PredictionRow], against: str
) -> dict[str, object]:
    """Measure and print what responses to a file come to; returns the numbers."""
    readings = ways(recipe, greedy, sampled)
    first = list({row.prompt_id: row for row in reversed(sampled)}.values())[::-1]
    print(f"\n{len(first)} prompts of {name}, {len(sampled)} responses, held against the {against}")
    found = held(recipe, first, readings, recipe.evaluation.annotator_draws, against)
    numbers = {way: measured(one, right, RESAMPLES) for way, (one, right) in found.items()}
    apart = {
        f"{one} - {other}": {measure: numbers[one][measure] - numbers[other][measure] for measure in numbers[one]}
        for one, other in PAIRS
        if one in numbers and other in numbers
    }
    cells = {way: {name: interval(values) for name, values in column.items()} for way, column in numbers.items()}
    differences = {pair: {name: interval(values) for name, values in column.items()} for pair, column in apart.items()}
    for columns, sign in [(cells, ""), (differences, "+")][: 1 + bool(differences)]:
        rows = [(name, *(shown(column[name], sign) for column in columns.values())) for name in [*ALL, *CONFIDENT]]
        print(aligned(list(columns), rows), end="\n\n")
    single = held(recipe, first, readings, 1, against)  # else rows would not be independent
    kept = {way: [thresholds(*single[way], risk, SPLITS) for risk in RISKS] for way in readings if way != "majority"}
    rows = [
        (
            way,
            f"{one.risk:g}",
            f"{one.found:.2f}",
            f"{one.coverage:.3f}",
            UNDEFINED if one.realised is None else f"{one.realised:.3f}",
        )
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


def shown(found: Interval, sign: str = "") -> str:
    """A measure as the tables have it."""
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def main() -> None:
    """Generate what is missing, measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a run's folder, or a model's directory in it")
    parser.add_argument("overrides", nargs="*", help="of the recipe's settings")
    parser.add_argument("--files", nargs="+", help="names of evaluation files of its recipe (default: all)")
    parser.add_argument("--keep", type=Path, help="answer the prompts anew, and keep the responses in this folder")
    parser.add_argument("--samples", type=int, default=5, help="that vote (default: %(default)s)")
    parser.add_argument("--against", choices=["annotators", "majority"], default="annotators", help="what is right")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    report = Report(given)
    model, recipe = finished_model(given.model, overrides=given.overrides)
    files = given.files or list(recipe.data.evaluation)
    if given.keep is not None:
        missing = [name for name in files if not (given.keep / name / "sampled" / "metrics.json").exists()]
        if missing:
            connect(recipe.name)
            asyncio.run(generate(recipe, model, missing, given.keep, given.samples))
    for name in files:
        folder = model.parent / "evaluation" / name if given.keep is None else given.keep / name / "sampled"
        greedy = [] if given.keep is None else read_predictions(given.keep / name / "greedy" / "predictions.jsonl")
        sampled = read_predictions(folder / "predictions.jsonl")
        report.keep(name, tell(recipe, name, greedy, sampled, given.against))
    report.finish()


if __name__ == "__main__":
    main()
