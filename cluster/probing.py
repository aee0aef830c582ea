"""What learner and engines say of the probe, paired by weight version: they are to agree at every one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from learner.rl import RlReport
from rollout.probe import Probe

Logprobs = NDArray[np.float32]  # [T] of the probe's tokens


class Probing:
    """The probe of a run, from the learner's first step since the job started on; a resumed job chooses a new one."""

    def __init__(self, ask: Callable[[Probe, int], Awaitable[Logprobs | None]]) -> None:
        """`ask` is `RolloutPool.logprobs`."""
        self.probe: Probe | None = None
        self._ask = ask
        self._asked = 0  # newest version that an engine was asked at; none is asked at an older one
        self._learner: dict[int, Logprobs] = {}  # by version
        self._engine: dict[int, Logprobs] = {}

    def due(self, version: int) -> bool:
        """Whether an engine is to be asked, now that all hold this version."""
        return self.probe is not None and version > self._asked

    async def ask(self, version: int) -> None:
        """Ask an engine, when it is due."""
        assert self.probe is not None, "it is due"
        self._asked = version
        found = await self._ask(self.probe, version)
        if found is not None:
            self._engine[version] = found

    def trained(self, version: int, report: RlReport) -> None:
        """The learner took a step from this version: it computed the probe before, or chose it."""
        if self.probe is None:
            self.probe, self._asked = report.probe, version
        if report.probe_logprobs is not None:
            self._learner[version] = report.probe_logprobs

    def read(self) -> float | None:
        """Mean |log p_learner - log p_engine| in nats over the versions that both are known of since the last reading.

        One version's as a rule, and none's where the engine was not done in time; its answer is in the next reading.
        """
        both = self._learner.keys() & self._engine.keys()
        apart = [float(np.abs(self._learner[version] - self._engine[version]).mean()) for version in both]
        over = {version for version in self._learner if version < self._asked} | both
        for found in (self._learner, self._engine):
            for version in over & found.keys():
                del found[version]
        return sum(apart) / len(apart) if apart else None
