"""What a tuning tries, read from the command line: values of settings, listed or drawn, and their combinations.

`rewards.weights.calibration=0.25,0.5,1` is each of these, `rl.optimizer.learning_rate=loguniform(1e-5,1e-4)` one value
for each sample, and `rl.steps=50` the same for all trials.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TUNABLE = ("rl", "rewards", "learner", "seed")  # what a stage 3 from a given model depends on
_DRAWN = re.compile(r"(\w+)\((.*)\)")
_DIGITS = 3  # of a drawn number: as many as anybody compares, and the trial's name has them all
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Draw:
    """A distribution that a value is drawn from."""

    low: float
    high: float
    logarithmic: bool

    def value(self, rng: np.random.Generator) -> str:
        """One value, as a recipe has it."""
        if self.logarithmic:
            return _short(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return _short(rng.uniform(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried."""

    fixed: tuple[str, ...]  # overrides of every trial
    listed: Mapping[str, tuple[str, ...]]  # values by key
    drawn: Mapping[str, Draw]

    def trials(self, samples: int | None, seed: int) -> list[dict[str, str]]:
        """Values by key for each trial: every combination of what is listed, once for each sample of what is drawn.

        Sample n is the same whatever the number of samples: more of them add trials, and change none.
        Raises ValueError where there is nothing to try, and where `samples` is missing or of no use.
        """
        if not self.listed and not self.drawn:
            raise ValueError("nothing to try: give a setting several values, as in rewards.weights.calibration=0.5,1")
        if self.drawn and (samples is None or samples < 1):
            raise ValueError(f"{next(iter(self.drawn))} is drawn: say how often, as in --samples 8")
        if samples is not None and not self.drawn:
            raise ValueError("--samples is for values that are drawn, as in loguniform(1e-5,1e-4), and none is")
        grid = [dict(zip(self.listed, values, strict=True)) for values in itertools.product(*self.listed.values())]
        found = [{**point, **self._sample(seed, n)} for n in range(samples or 1) for point in grid]
        for number, trial in enumerate(found):
            if trial in found[:number]:
                raise ValueError(f"{', '.join(overrides_of(trial))}: given twice; leave one out")
        return found

    def _sample(self, seed: int, number: int) -> dict[str, str]:
        rng = np.random.default_rng([seed, number])
        return {key: draw.value(rng) for key, draw in self.drawn.items()}


def read_sweep(overrides: Sequence[str]) -> Sweep:
    """What overrides of a command line try. Raises ValueError, which names the override and the remedy."""
    fixed: list[str] = []
    listed: dict[str, tuple[str, ...]] = {}
    drawn: dict[str, Draw] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        key = key.strip()
        values, draw = _parts(text), _DRAWN.fullmatch(text.strip())
        if not separator or (draw is None and len(values) == 1):
            fixed.append(override)
            continue
        _refuse_untunable(override, key)
        if key in listed or key in drawn:
            raise ValueError(f"{override}: {key} is tried already; give all its values at once")
        if draw is not None:
            drawn[key] = _draw(override, draw[1], draw[2])
        elif "" in values:
            raise ValueError(f"{override}: a value between two commas is empty; write one, or leave the comma out")
        else:
            listed[key] = values
    return Sweep(tuple(fixed), listed, drawn)


def overrides_of(trial: Mapping[str, str]) -> list[str]:
    """The values of a trial as overrides of its recipe."""
    return [f"{key}={value}" for key, value in trial.items()]


def name_of(trial: Mapping[str, str]) -> str:
    """A trial's name, which can name a folder: the last part of each key, with its value."""
    text = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in trial.items())
    return re.sub(r"[^\w.+-]+", "_", text)


def _refuse_untunable(override: str, key: str) -> None:
    if key.partition(".")[0] not in TUNABLE:
        raise ValueError(
            f"{override}: a trial is a stage 3, from the same model and on the same data as the others; what can be "
            f"tried are settings of {', '.join(TUNABLE)}. A value with commas is put in quotes"
        )


def _draw(override: str, kind: str, text: str) -> Draw:
    expected = "expected uniform(LOW,HIGH) or loguniform(LOW,HIGH) with LOW below HIGH, as in loguniform(1e-5,1e-4)"
    if kind not in ("uniform", "loguniform"):
        raise ValueError(f"{override}: got {kind}; {expected}")
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"{override}: got ({text}); {expected}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{override}: got ({text}); {expected}")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"{override}: the logarithm of {low:g} is not defined; take a LOW above 0, or uniform")
    return Draw(low, high, logarithmic=kind == "loguniform")


def _short(number: float) -> str:
    return f"{number:.{_DIGITS}g}"


def _parts(text: str) -> tuple[str, ...]:
    """The text between the commas that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return tuple(part.strip() for part in parts)
