"""The measurements of `benchmarks.overlap`: which runs, and what is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bound_process import bound
from benchmarks.real_run import (
    EMOJI,
    ENGINE_CORE,
    LEARNER_CORE,
    WORDS,
    Work,
    prepared,
    prompts_of,
    real_run,
    recipe_for,
    rollouts_of,
    visits_of,
)
from benchmarks.report import Figure, figure
from benchmarks.step_times import Steps, Trained, balanced, divisors
from configs.schema import Recipe

_SMALL = {"rl.prompts_per_step": 4, "rl.samples_per_prompt": 2, "rl.groups_per_worker": 4, "rl.response_tokens": 16}
_PAUSE = {"rl.response_tokens": 400, "engine.tokens_per_sequence": 512, "engine.sequences_at_once": 12}
WORK = {"emoji": EMOJI, "words": WORDS}
_FILLING = 2  # steps until an asynchronous run is as it will be; what runs beside it is measured behind as many


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    folder: Path
    model_dir: str
    pairs: int  # of steps, measured in a run
    lag: int  # of asynchronous runs
    small: bool
    work: Work

    @classmethod
    def at(cls, folder: Path, pairs: int, lag: int, small: bool, work: str) -> Bench:
        """With its model and its data."""
        chosen = WORK[work]
        return cls(folder, prepared(recipe_for(folder, "model", work=chosen)), pairs, lag, small, chosen)

    def recipe(self, sequences_at_once: int, lag: int, number: int = 0) -> Recipe:
        """Runs differ in this alone."""
        dials = {"engine.sequences_at_once": sequences_at_once, "rl.max_policy_lag": lag}
        name, settings = f"{sequences_at_once}-{lag}-{number}", {**(_SMALL if self.small else {}), **dials}
        return recipe_for(self.folder, name, settings, self.work)

    def run(self, recipe: Recipe) -> Steps:
        """The measured steps."""
        return asyncio.run(real_run(recipe, self.model_dir, _FILLING, self.steps))

    @property
    def steps(self) -> int:
        """Measured in a run."""
        return 2 * self.pairs

    @property
    def responses(self) -> int:
        """Of a step."""
        rl = self.recipe(1, 0).rl
        return rl.prompts_per_step * rl.samples_per_prompt


def curve(bench: Bench, places: Sequence[int]) -> tuple[list[Figure], int]:
    """Figures by sequences at once, and with how many of them generation and training are in balance."""
    found, generation, training = [], {}, []
    for place in places:
        together, apart = (bench.run(bench.recipe(place, lag)) for lag in (bench.lag, 0))
        generating, learning = (apart.by_pairs(f"learner_{name}") for name in ("wait_seconds", "seconds"))
        generation[place] = apart.mean("learner_wait_seconds")
        training.append(apart.mean("learner_seconds"))
        slower = max(generation[place], training[-1])
        lengths = [run.by_pairs("step_seconds") for run in (together, apart)]
        found += [
            figure(f"{place} at once: generation / training", "", _ratios(generating, learning), 2),
            figure("  a step at lag 0", "s", lengths[1], 2),
            figure(f"  a step at lag {bench.lag}", "s", lengths[0], 2),
            figure("    faster by", "", _ratios(lengths[1], lengths[0]), 2),
            figure("    of the slower part at lag 0", "", [seconds / slower for seconds in lengths[0]], 2),
        ]
    fitting = [place for place in divisors(bench.responses) if min(places) <= place <= max(places)]
    return found, balanced(generation, sum(training) / len(training), fitting)


@dataclass(frozen=True, slots=True)
class Round:
    """One of everything."""

    together: Steps  # asynchronous
    apart: Steps  # lag 0
    generation: float  # vLLM alone: seconds for a step's responses
    trained: Trained  # DeepSpeed alone


def measured_round(bench: Bench, place: int, number: int) -> Round:
    """Both runs, and both parts alone."""
    recipe = bench.recipe(place, bench.lag, number)
    prompts, length = prompts_of(recipe), _FILLING + bench.steps
    visits = visits_of(recipe, prompts, length + 1)
    asked = [visits.visit(group).prompt for group in range((length + 1) * recipe.rl.prompts_per_step)]
    given, steps = (bench.model_dir, recipe), (_FILLING, bench.steps)
    together = bench.run(recipe)
    generation = bound(ENGINE_CORE, "benchmarks.bare_engine.generate", *given, asked, *steps)
    trained = bound(LEARNER_CORE, "benchmarks.bare_learner.train", *given, prompts, rollouts_of(recipe), *steps)
    return Round(together, bench.run(bench.recipe(place, 0, number)), generation, trained)


def balance(bench: Bench, place: int, repeats: int) -> list[Figure]:
    """The figures of some rounds."""
    rounds = [measured_round(bench, place, number) for number in range(1, repeats + 1)]
    tokens = bench.responses * bench.recipe(place, 0).rl.response_tokens
    alone = [[tokens / r.generation for r in rounds], [r.trained.rate for r in rounds]]
    inside = [[r.together.rollout_rate for r in rounds], [r.together.learner_rate for r in rounds]]
    parts = [[r.generation for r in rounds], [r.trained.seconds for r in rounds]]
    steps = [[r.together.seconds for r in rounds], [r.apart.seconds for r in rounds]]
    return [
        figure(f"rollout in the system, {place} at once", "tokens/s", inside[0]),
        figure("  vLLM alone", "tokens/s", alone[0]),
        figure("  the first of the second", "", _ratios(inside[0], alone[0]), 3, "at least 0.95"),
        figure("learner in the system", "tokens/s", inside[1]),
        figure("  DeepSpeed alone", "tokens/s", alone[1]),
        figure("  the first of the second", "", _ratios(inside[1], alone[1]), 3, "at least 0.95"),
        figure("a step's responses, vLLM alone", "s", parts[0], 2),
        figure("a step's training, DeepSpeed alone", "s", parts[1], 2),
        figure(f"a step at lag {bench.lag}", "s", steps[0], 2),
        figure("  of the slower part alone", "", _ratios(steps[0], list(map(max, *parts))), 2, "at most 1.10"),
        figure("  until all workers hold its weights", "s", [r.together.mean("update_seconds") for r in rounds], 3),
        figure("a step at lag 0", "s", steps[1], 2),
        figure(f"  faster at lag {bench.lag} by", "", _ratios(steps[1], steps[0]), 2, "at least 1.6"),
    ]


def pause(bench: Bench, repeats: int) -> list[Figure]:
    """The figures of some updates."""
    recipe = recipe_for(bench.folder, "pause", _PAUSE, bench.work)
    found = bound(ENGINE_CORE, "benchmarks.update_pause.pauses", bench.model_dir, recipe, prompts_of(recipe), repeats)
    ratios = [_ratios([getattr(one, name) for one in found], [one.reload for one in found]) for name in _SEEN]
    return [
        figure("the reload alone", "ms", [1000 * one.reload for one in found], 1),
        figure("requests stand still", "ms", [1000 * one.longest for one in found], 1),
        figure("  of the reload alone", "", ratios[0], 2, "at most 2"),
        figure("their tokens come later by", "ms", [1000 * one.lost for one in found], 1),
        figure("  of the reload alone", "", ratios[1], 2),
        figure("the update, from call to answer", "ms", [1000 * one.whole for one in found], 1),
    ]


_SEEN = ("longest", "lost")


def _ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]
