"""What comes of times: a step's seconds, tokens a second, where generation and training balance, what a pause costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cluster.run_log import Metrics


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run that were measured, by the lines of its log."""

    lines: Sequence[Metrics]

    def each(self, name: str) -> list[float]:
        """One number of each step."""
        return [line[name] or 0.0 for line in self.lines]

    def by_pairs(self, name: str) -> list[float]:
        """The mean of each two steps, of which there is an even number: with lag 1 two batches may come at once."""
        each = self.each(name)
        return [sum(pair) / 2 for pair in zip(each[::2], each[1::2], strict=True)]

    def mean(self, name: str) -> float:
        """Its mean: what one step owes to the next evens out over a run."""
        return sum(self.each(name)) / len(self.lines)

    @property
    def seconds(self) -> float:
        """From a step's end to the next one's."""
        return self.mean("step_seconds")

    @property
    def rollout_rate(self) -> float:
        """Response tokens a second, of the time in which the engines had requests."""
        busy = sum(self.each("step_seconds")) - sum(self.each("rollout_wait_seconds"))
        return self._summed("rollout_tokens_per_second", "step_seconds") / busy

    @property
    def learner_rate(self) -> float:
        """Tokens a second that went through the learner's model, of the time in which it was at its steps."""
        return self._summed("learner_tokens_per_second", "learner_seconds") / sum(self.each("learner_seconds"))

    def _summed(self, rate: str, seconds: str) -> float:
        return sum(r * s for r, s in zip(self.each(rate), self.each(seconds), strict=True))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training loop came to after its warm-up."""

    seconds: float  # of a step, the mean
    rate: float  # tokens a second that went through the model, prompts included


@dataclass(frozen=True, slots=True)
class Pause:
    """One update of an engine's weights, seconds."""

    longest: float  # between two tokens of a request, beyond what is usual
    lost: float  # by which its tokens came later: copies and checksums slow the engine down before it stands still
    whole: float  # from the worker's call to its answer
    reload: float  # `receive_weights` alone, just before


def seconds_per_step(done: Sequence[float], groups_per_step: int, warm_up: int, steps: int) -> float:
    """Of a loop without steps, by when each of its groups was done, ascending: from one step's last group to another's.

    Where `warm_up` (1 at least) and `steps` end, the loop still has all the requests that it may have: it is neither
    filling nor emptying in between.
    """
    first, last = (done[number * groups_per_step - 1] for number in (warm_up, warm_up + steps))
    return (last - first) / steps


def balanced(generation: Mapping[int, float], training: float, candidates: Sequence[int]) -> int:
    """The most sequences at once with which generating a step still takes as long as training on it.

    `generation` are a step's seconds by sequences at once; between them, lines in both logarithms. Where none of the
    candidates is slow enough, the fewest.
    """
    known = sorted(generation)
    log_seconds = np.log([generation[number] for number in known])
    estimated = np.exp(np.interp(np.log(candidates), np.log(known), log_seconds))
    slow_enough = [number for number, seconds in zip(candidates, estimated, strict=True) if seconds >= training]
    return max(slow_enough, default=min(candidates))


def standstill(times: Sequence[float], begun: float, ended: float) -> tuple[float, float]:
    """How much longer than usual the longest gap between tokens was, and all together, where an update was under way.

    `times` are when the tokens came, ascending. Usual is the median of the gaps that were over when it began.
    """
    usual = statistics.median(after - before for before, after in pairwise(times) if after <= begun)
    beyond = [after - before - usual for before, after in pairwise(times) if after > begun and before < ended]
    return max(beyond), sum(beyond)


def divisors(number: int) -> list[int]:
    """Ascending."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
