"""Stage 3's log: everything that a step says, in one line, and the warnings that it calls for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.calibration_by_lag import CalibrationByLag
from cluster.clocks import Clocks
from cluster.monitors import Monitor
from cluster.records import GroupRecord
from cluster.run_log import RunLog
from cluster.step_metrics import batch_metrics, malformed_causes
from configs.schema import Rewards, RewardWeights
from learner.rl import RlReport

logger = logging.getLogger(__name__)


class StepLog:
    """Gathers what is known of a step and writes it down."""

    def __init__(self, log: RunLog, rewards: Rewards) -> None:
        self.clocks = Clocks()
        self._log = log
        self._rewards = rewards
        self._monitor = Monitor()
        self._by_lag = CalibrationByLag()

    def write(
        self,
        version: int,
        records: Sequence[GroupRecord],
        reports: Sequence[RlReport],
        weights: RewardWeights,
        others: Mapping[str, float | None],
    ) -> None:
        """The step from `version` to the next, trained on these groups by these ranks; `others` are more numbers."""
        step = version + 1
        found = batch_metrics(records, version, weights, self._rewards) | _learner_metrics(reports)
        for warning in self._monitor.look({**found, **others}, step):
            logger.warning("step %d: %s", step, warning)
        mix = {f"weight/{name}": weight for name, weight in weights.model_dump().items()}
        causes = {f"malformed/{cause}": float(n) for cause, n in malformed_causes(records).items()}
        self._log.log(
            {
                **found,
                **mix,
                **causes,
                **self._monitor.standing,
                **self._by_lag.step(records, version),
                **self.clocks.read(),
                **others,
            },
            step,
        )

    def calibration_by_lag(self) -> str:
        """The table of everything trained on, the steps before a resume included."""
        return self._by_lag.table()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` reads."""
        return {"calibration_by_lag": self._by_lag.state_dict(), "monitor": self._monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._by_lag.load_state_dict(state["calibration_by_lag"])
        self._monitor.load_state_dict(state["monitor"])


def _learner_metrics(reports: Sequence[RlReport]) -> dict[str, float | None]:
    seconds = max(report.seconds for report in reports)
    return {
        **reports[0].metrics(),
        "learner_seconds": seconds,
        "learner_tokens_per_second": sum(report.tokens for report in reports) / seconds,
    }
