"""How many trajectories a reward worker scores in a second on one core, with the built-in matchers.

    python -m benchmarks.reward_service --json reward_service.json

Groups of 8 responses of about 300 tokens, as rollout workers send them. Two numbers for each matcher: of scoring alone,
and of all that a worker does with a group: decode, score, write, encode. Printed are medians over repeats and their
range. A second is one of the process's own time on a core, so that what else runs on the machine does not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from benchmarks.report import Figure, Report, figure
from cluster.reward_actor import RewardWorker
from configs.load import load_recipe
from configs.schema import Recipe
from learner.scratch import train_tokenizer
from rewards.parse import OUTER_TAGS, render
from rollout.codec import decode_group, encode_group
from rollout.prompts import Message, Prompt
from rollout.scored import GroupScorer
from rollout.trajectory import FinishReason, Group, Sample, Trajectory, VersionSpan

DEMO = Path(__file__).parents[1] / "configs" / "emoji" / "demo.yaml"
SAMPLES = 8  # a group
WORDS_PER_ELEMENT = 52
WORDS = (
    "the face looks at us with open eyes and a mouth that may smile or not while around it light and colours of an "
    "evening speak of joy or of fear as others would say who know it from elsewhere, so nobody can be very sure, 3 or "
    "4 in 10 would call it sad"
).split()


@dataclass(frozen=True, slots=True)
class Case:
    """A built-in matcher, with a reference and answers that it reads."""

    correctness: str
    reference: str
    answers: Sequence[str]
    candidates: tuple[str, ...] = ()


CASES = (
    Case("exact", "joy", ("joy", "Joy ", "fear", "anger", "sadness"), ("joy", "fear", "anger", "sadness")),
    Case("numeric", "1234.5", ("1,234.5", "1.2345e3", "2469/2", "12", "many")),
    Case("choice", "B", ("B", "(b)", "B) joy", "C", "joy")),
)


def texts(case: Case, recipe: Recipe, number: int, seed: int = 0) -> list[str]:
    """Well-formed responses; their reasoning is of random words."""
    chance = random.Random(seed)
    stated = list(recipe.response.confidences)
    return [
        render(
            {name: " ".join(chance.choices(WORDS, k=WORDS_PER_ELEMENT)) for name in recipe.response.reasoning_elements},
            chance.choice(case.answers),
            chance.choice(stated),
        )
        for _ in range(number)
    ]


def groups(tokenizer: Tokenizer, case: Case, recipe: Recipe, number: int) -> list[bytes]:
    """Encoded groups, not yet scored."""
    samples = [_sample(tokenizer, text) for text in texts(case, recipe, number * SAMPLES)]
    return [
        encode_group(
            Group(
                group_id=index,
                prompt_id="p",
                images=("/data/picture.png",),
                prompt_tokens=np.arange(400, dtype=np.int32),
                target=case.reference,
                admitted=0.0,
                worker="rollout-0",
                trajectories=tuple(map(Trajectory, samples[index * SAMPLES : (index + 1) * SAMPLES])),
            )
        )
        for index in range(number)
    ]


def _sample(tokenizer: Tokenizer, text: str) -> Sample:
    ids = [*tokenizer.encode(text).ids, 0]  # whichever token ends it
    length = len(ids)
    return Sample(
        tokens=np.array(ids, np.int32),
        logprobs=np.full(length, -0.5, np.float32),
        version_spans=(VersionSpan(0, 0, length),),
        finish_reason=FinishReason.STOP,
        text=text,
        started=0.0,
        finished=1.0,
    )


def speeds(work: Callable[[], None], trajectories: int, repeats: int) -> list[float]:
    """Trajectories a second in each repeat of some work, after it was done once."""
    work()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(trajectories / (time.process_time() - started))
    return found


def compared(case: Case, model: str, file: Path, number: int, repeats: int) -> list[Figure]:
    """Scoring alone, and all of a worker's work, on the same groups."""
    recipe = load_recipe(DEMO, [f"rewards.correctness={case.correctness}", "rewards.target=null"])
    prompt = Prompt("p", "t", (Message("user", "?"),), candidates=case.candidates, label=case.reference)
    tokenizer = AutoTokenizer.from_pretrained(model).backend_tokenizer
    encoded = groups(tokenizer, case, recipe, number)
    decoded = list(map(decode_group, encoded))
    worker = RewardWorker(model, recipe, str(file))
    worker.start()
    scorer: GroupScorer = worker._scorer

    def score() -> None:
        for group in decoded:
            scorer.score(group, prompt)

    def serve() -> None:
        for message in encoded:
            worker.score(message, prompt)

    record, _ = worker.score(encoded[0], prompt)
    assert all(sample.correct is not None for sample in record.samples), "every response must be well formed"
    tokens = statistics.mean(len(t.sample.tokens) for group in decoded for t in group.trajectories)
    found = [
        figure("a response, the mean", "tokens", [tokens]),
        figure("scoring alone, on one core", "trajectories/s", speeds(score, number * SAMPLES, repeats)),
        figure("all of a worker's work, on one core", "trajectories/s", speeds(serve, number * SAMPLES, repeats)),
    ]
    worker.close()
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model, for its tokenizer (default: one trained on the responses)")
    parser.add_argument("--groups", type=int, default=64, help="groups of a repeat (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="repeats (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    report = Report(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or _own_tokenizer(Path(folder) / "model")
        for case in CASES:
            file = Path(folder) / case.correctness
            report.add(case.correctness, compared(case, model, file, arguments.groups, arguments.repeats))
    report.finish()


def _own_tokenizer(folder: Path) -> str:
    recipe = load_recipe(DEMO)
    seen = [text for case in CASES for text in texts(case, recipe, 50, seed=1)]
    train_tokenizer(seen, [*OUTER_TAGS, *recipe.response.reasoning_elements], 2000).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
