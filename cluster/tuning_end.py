"""How Tune's loop ends early."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial


class TuningEnd(tune.Callback):
    """Ends the loop when all trials were asked to stop and the last that ran has: the others need not begin.

    Earlier it would kill them after 10 s.
    """

    def __init__(self, request: Path) -> None:
        self._request = request

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_: object) -> None:
        """A trial has ended."""
        self._look(trials, trial)

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: object) -> None:
        """A trial has failed."""
        self._look(trials, trial)

    def _look(self, trials: Sequence[Any], ended: Any) -> None:
        others = [trial for trial in trials if trial is not ended and trial.status == TuneTrial.RUNNING]
        if self._request.exists() and not others:
            signal.raise_signal(signal.SIGUSR1)  # which Tune's loop takes for the end
