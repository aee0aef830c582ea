"""Samples a second of stage 3 against those of TRL's GRPOTrainer, which generates with transformers, on CPU cores.

    python -m benchmarks.against_trl --json against_trl.json

SmolLM2-135M and the rated words, bf16: 8 prompts of 81 tokens and 8 samples of each a step, every response of 48
tokens (the model's end token is one it never says), one optimizer step a batch. Both load the same model, read the same
prompts and give the same rewards. TRL is installed in an environment of its own, with the versions of torch and
transformers that Caliber has; of the ways to set it that `--ways` names, a step of each is taken, and the fastest is
measured. Caliber is `caliber rl` as it is, with prompts computed for each sample and once for each group.

The sides take turns, and nothing of ours runs beside them. All takes about half an hour, on a machine that should have
nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.against_trl_setting import PROMPT_TOKENS, prepared
from benchmarks.against_trl_sides import OVERRIDES, RESPONSE_TOKENS, SAMPLES, TRL, Trl, Turn, Way, caliber_turn
from benchmarks.report import Report

EACH, ONCE = "Caliber, prompts for each sample", "Caliber, prompts once for each group"
_WAYS = ("eager:64", "eager:16", "sdpa:64", "sdpa:16")


@dataclass(frozen=True, slots=True)
class Figure:
    """A side over all repeats. The ratio is that of the turns of one repeat."""

    side: str
    rate: float  # samples a second, the median
    lowest: float
    highest: float
    ratio: float  # to TRL's, the median
    lowest_ratio: float
    highest_ratio: float
    response_tokens: float  # the mean over the turns
    reward: float


def figures(repeats: Sequence[Sequence[Turn]]) -> list[Figure]:
    """Of each side, in the order of the first repeat. Every repeat holds a turn of TRL's."""
    by_side = [{turn.side: turn for turn in turns} for turns in repeats]
    return [_figure(side, [turns[side] for turns in by_side], [turns[TRL] for turns in by_side]) for side in by_side[0]]


def _figure(side: str, turns: Sequence[Turn], of_trl: Sequence[Turn]) -> Figure:
    rates = [turn.rate for turn in turns]
    ratios = [turn.rate / other.rate for turn, other in zip(turns, of_trl, strict=True)]
    return Figure(
        side=side,
        rate=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        ratio=statistics.median(ratios),
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        response_tokens=statistics.mean(turn.response_tokens for turn in turns),
        reward=statistics.mean(turn.reward for turn in turns),
    )


def fastest(trl: Trl, ways: Sequence[Way]) -> Way:
    """The way whose step took the shortest."""
    seconds = {}
    for way in ways:
        (seconds[way],) = trl.turn(way, 1).seconds
        print(f"TRL, {way}: {seconds[way]:.1f} s", flush=True)
    return min(ways, key=lambda way: seconds[way])


def main() -> None:
    """Measure, print, and write."""
    given = _arguments()
    report = Report(given)
    overrides = [f"learner.threads_per_rank={given.threads}", f"engine.threads_per_worker={given.threads}"]
    overrides += given.overrides
    with tempfile.TemporaryDirectory(prefix="caliber-") as own:
        setting = prepared(given.folder.absolute(), Path(own))
        print(f"{len(setting.prompts)} prompts of {PROMPT_TOKENS} tokens, responses of {RESPONSE_TOKENS}", flush=True)
        # Many rows a pass leave their process large: it must not take the memory that Caliber's turns need.
        with Trl(setting, Path(own) / "ways", given.threads) as trl:
            way = fastest(trl, [Way.read(text) for text in given.ways])
        with Trl(setting, Path(own) / "trl", given.threads) as trl:
            trl.turn(way, 1)  # warms up
            ours = partial(caliber_turn, setting, steps=given.steps, overrides=overrides)
            sides = [
                lambda: trl.turn(way, given.trl_steps),
                lambda: ours(EACH, shared=False),
                lambda: ours(ONCE, shared=True),
            ]
            repeats = []
            for number in range(given.repeats):
                turns = []
                for take in sides if number % 2 == 0 else sides[::-1]:
                    turns.append(take())
                    seconds = sum(turns[-1].seconds) / len(turns[-1].seconds)
                    print(f"{number + 1}. {turns[-1].side:38}{seconds:6.1f} s a step", flush=True)
                repeats.append(turns)
            found, versions = figures(repeats), trl.versions
    show(found)
    report.keep("sides", [asdict(side) for side in found])
    report.keep("turns", [[asdict(turn) for turn in turns] for turns in repeats])
    settings = [*(f"{name}={value}" for name, value in OVERRIDES.items()), *overrides]
    report.keep("settings", {"caliber": settings, "trl": asdict(way), "versions_of_trl": versions})
    report.finish()


def show(found: Sequence[Figure]) -> None:
    """A line for each side."""
    print(f"\n{SAMPLES} samples a step{'samples/s':>30}{'against TRL':>34}{'tokens':>12}{'reward':>8}")
    for figure in found:
        span = f"({figure.lowest:.2f} to {figure.highest:.2f})"
        ratios = f"({figure.lowest_ratio:.2f} to {figure.highest_ratio:.2f})"
        print(
            f"{figure.side:38}{figure.rate:7.2f} {span:18}{figure.ratio:10.2f} {ratios:18}"
            f"{figure.response_tokens:8.1f}{figure.reward:8.2f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of Caliber's settings, such as rl.max_policy_lag=0")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps of Caliber's in a turn (default: %(default)s)")
    parser.add_argument("--trl-steps", type=int, default=1, help="steps of TRL's in a turn (default: %(default)s)")
    parser.add_argument(
        "--ways",
        nargs="+",
        default=_WAYS,
        help="TRL's attention and rows a pass to choose among (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("outputs/against_trl"),
        help="keeps TRL's environment and the model (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
