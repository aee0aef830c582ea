"""The reward mix over a stage 3: its weights at each step, and where they changed, as the log has them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.live_weights import weights_asked_for
from cluster.run_folder import LogLine, RunFolder
from configs.schema import RewardWeights
from rollout.trajectory import Group


@dataclass(frozen=True, slots=True)
class MixChange:
    """Weights that differ from those of the step before."""

    step: int
    before: RewardWeights
    after: RewardWeights

    @property
    def shown(self) -> str:
        """What changed, such as `calibration 1 → 0.5`."""
        pairs = zip(self.before.model_dump().items(), self.after.model_dump().values(), strict=True)
        return ", ".join(f"{name} {before:g} → {after:g}" for (name, before), after in pairs if before != after)


@dataclass(frozen=True, slots=True)
class MixSpan:
    """Steps in a row with the same weights."""

    first: int
    last: int | None  # None: there is no other mix by now
    weights: RewardWeights

    @property
    def shown(self) -> str:
        """Which steps, such as `steps 1 to 5`."""
        if self.last is None:
            return f"from step {self.first} on"
        return f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"


class Mixes:
    """Weights by step."""

    def __init__(self, log: Sequence[LogLine], asked: RewardWeights) -> None:
        """`log` are the lines of stage 3, ascending; `asked` are the weights of the step after the last."""
        names = RewardWeights.model_fields
        self._steps = [int(line["step"] or 0) for line in log]
        self._weights = [RewardWeights.model_validate({name: line[f"weight/{name}"] for name in names}) for line in log]
        self._asked = asked

    @classmethod
    def of_run(cls, run: RunFolder) -> Mixes:
        """As far as its stage 3 has come."""
        return cls(run.stage(3).log, weights_asked_for(run))

    def at(self, step: int) -> RewardWeights:
        """The weights that `step` was, or will be, trained with."""
        place = bisect_left(self._steps, step)
        return self._weights[place] if place < len(self._steps) else self._asked

    def spans(self, last: int) -> list[MixSpan]:
        """Every mix that a step up to `last` was trained with, or the next one will be; ascending."""
        following = self._steps[-1] + 1 if self._steps else 1
        known = [*zip(self._steps, self._weights, strict=True), (following, self._asked)]
        changed = [known[0], *(after for before, after in pairwise(known) if before[1] != after[1])]
        begun = [(first, weights) for first, weights in changed if first <= last]
        ends = [*(first - 1 for first, _ in begun[1:]), None]
        return [MixSpan(first, end, weights) for (first, weights), end in zip(begun, ends, strict=True)]

    def first_met(self, group: Group) -> RewardWeights:
        """The weights that a group can first have met."""
        return self.at(first_step(group))

    @property
    def changes(self) -> list[MixChange]:
        """Every change between two steps of the log."""
        lines = pairwise(zip(self._steps, self._weights, strict=True))
        return [MixChange(step, before, after) for (_, before), (step, after) in lines if before != after]


def first_step(group: Group) -> int:
    """The earliest that a group can be trained in: version v trains step v + 1, and it holds tokens of its newest."""
    return 1 + max(span.version for t in group.trajectories for span in t.sample.version_spans)
