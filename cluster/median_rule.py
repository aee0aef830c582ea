"""Which trials are without hope: the median stopping rule."""

from __future__ import annotations

import logging
import math
from typing import Any

from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from cluster.digests import is_finished
from cluster.trial_progress import SCORE, WINDOW
from cluster.trials import give_up
from configs.load import load_recipe

logger = logging.getLogger(__name__)

_FEWEST_OTHERS = 3


class MedianRule(MedianStoppingRule):
    """Marks a trial whose best score so far is below the median of the others' mean scores up to the same step.

    (Golovin et al. 2017, Google Vizier, 3.2.) There must be three others that came as far. Of Tune's rules it is
    a mild one: a front needs more trials than the one with the best score. A marked trial ends by itself, see
    `cluster.trial_job`.
    """

    def __init__(self, steps: int) -> None:
        """`steps` is the number of a trial's; a quarter of them, and a window at least, everybody may have."""
        super().__init__(
            time_attr="training_iteration",  # a call of the trial's, one for each step
            metric=SCORE,
            mode="max",
            grace_period=max(WINDOW, steps // 4),
            min_samples_required=_FEWEST_OTHERS,
            min_time_slice=math.inf,  # trials that wait for others to compare with need not be paused
            hard_stop=False,  # it then says to pause a trial, once, and leaves it alone
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Look at a trial after a step; Tune lets it run."""
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.PAUSE:
            recipe = load_recipe(trial.config["recipe"])
            if not is_finished(recipe, 3):  # one that is tells its steps again, to be compared with
                give_up(recipe)
                logger.warning("%s is given up at step %d", recipe.name, result["training_iteration"])
        return str(TrialScheduler.CONTINUE)
