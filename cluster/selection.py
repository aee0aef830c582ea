"""Which groups the batches get and which they do without: whether being slow selects what is learnt from.

Long responses to hard prompts take longer than others. Batches that pass over what still runs, and drops, then leave
the learner with the short and easy ones, and calibrated to those. Each meter answers a question:

| meter                | question                                                                                     |
|----------------------|----------------------------------------------------------------------------------------------|
| (no prefix)          | what are the groups like that the batch trained on? `cluster.step_metrics` has them          |
| `finished_late/`     | what are those like that batches had to do without? Groups that ended since the line before, |
|                      | and ran when an earlier batch was taken: what they are like is known only now                |
| `dropped_complete/`  | what are those like that never will be trained on, as far as they have records?              |
| `running/`           | how slow is what the batch passed over: seconds since it began, versions since it began      |
| `dropped_unfinished/`| the same of what was dropped before it was complete, of which nothing else is known          |
| `stale_wait_`        | how long was a full batch held back, and for how many groups, that none of them is too old?  |

Where slowness says nothing of the answers, the first three agree but for chance in accuracy and confidence. Under
`wait` a late group is trained on in a later step: what `finished_late/` shows is put off. Under `drop` some of it is
lost, and `dropped_unfinished/` says how much. All but `running/` count since the line before; where there are no
groups, only their number is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.records import GroupRecord
from cluster.step_metrics import batch_metrics
from configs.schema import Rewards, RewardWeights

_TOLD = ("accuracy", "confidence", "malformed", "response_tokens", "generation_seconds", "reward")


@dataclass(slots=True)
class _Running:
    version: int  # confirmed by every worker when the group began
    since: float
    passed_over: bool = False


@dataclass(frozen=True, slots=True)
class _Age:
    seconds: float
    versions: int


class Selection:
    """Follows every group from its beginning to its end, and tells once a step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._passed_over: list[_Age] = []
        self._late: list[GroupRecord] = []
        self._dropped: list[GroupRecord] = []
        self._unfinished: list[_Age] = []
        self._held_since: float | None = None
        self._held_seconds = 0.0
        self._held_for = 0

    def started(self, group_id: int, version: int) -> None:
        """A group's generation begins; `version` is confirmed by every worker."""
        self._running[group_id] = _Running(version, self._clock())

    def ended(self, record: GroupRecord) -> None:
        """A group is complete."""
        if self._running.pop(record.group_id).passed_over:
            self._late.append(record)

    def dropped(self, record: GroupRecord) -> None:
        """A complete group will not be trained on."""
        self._dropped.append(record)

    def gave_up(self, group_id: int, version: int) -> None:
        """A group that is not complete, and never will be; `version` is the learner's."""
        self._unfinished.append(self._age(self._running.pop(group_id), version))

    def held_back(self, groups: int) -> None:
        """A full batch is not taken, for the sake of so many running groups."""
        if self._held_since is None:
            self._held_since = self._clock()
        self._held_for = max(self._held_for, groups)

    def taken(self, version: int) -> None:
        """A batch is taken, without the groups that still run."""
        if self._held_since is not None:
            self._held_seconds += self._clock() - self._held_since
            self._held_since = None
        for running in self._running.values():
            running.passed_over = True
        self._passed_over = [self._age(running, version) for running in self._running.values()]

    def read(self, version: int, weights: RewardWeights, rewards: Rewards) -> dict[str, float | None]:
        """The meters since the last reading, under the mix that the step is trained with."""
        found = {
            "stale_wait_seconds": self._held_seconds,
            "stale_wait_groups": float(self._held_for),
            **_ages("running", self._passed_over),
            **_ages("dropped_unfinished", self._unfinished),
            **_told("finished_late", self._late, version, weights, rewards),
            **_told("dropped_complete", self._dropped, version, weights, rewards),
        }
        self._held_seconds, self._held_for = 0.0, 0
        self._late, self._dropped, self._unfinished = [], [], []
        return found

    def _age(self, running: _Running, version: int) -> _Age:
        return _Age(self._clock() - running.since, version - running.version)


def _ages(name: str, ages: Sequence[_Age]) -> Mapping[str, float]:
    count = len(ages)
    if not count:
        return {f"{name}/groups": 0.0}
    return {
        f"{name}/groups": float(count),
        f"{name}/seconds": sum(age.seconds for age in ages) / count,
        f"{name}/lag_mean": sum(age.versions for age in ages) / count,
        f"{name}/lag_max": float(max(age.versions for age in ages)),
    }


def _told(
    name: str, records: Sequence[GroupRecord], version: int, weights: RewardWeights, rewards: Rewards
) -> Mapping[str, float | None]:
    if not records:
        return {f"{name}/groups": 0.0}
    found = batch_metrics(records, version, weights, rewards)
    return {f"{name}/groups": float(len(records)), **{f"{name}/{metric}": found.get(metric) for metric in _TOLD}}
