"""A trial as Ray Tune runs it: an actor that is the driver of one stage 3.

The stage's workers, ranks and scorers are Ray actors within the trial's placement group: Tune reserves the whole group
before a trial begins, so that no two trials wait for each other's half. Each call of Tune's returns when the log has
one more line. What Tune does to end an actor, a kill after 10 s, leaves no time for a checkpoint: a trial that is to
end, without hope or with the whole tuning, finds that written in a file, and ends by itself.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from cluster.actor_names import names_begin_with
from cluster.digests import is_finished
from cluster.quiet import quiet
from cluster.run_folder import RunFolder
from cluster.trial_job import TrialJob
from cluster.trials import bundles, given_up
from configs.load import load_recipe

_NEXT_TO_NOTHING = {"CPU": 0.01}  # Ray reserves no group of nothing


class TrialActor(tune.Trainable):
    """A trial; its config names the file of its `recipe`.

    None of its methods may be a coroutine: Ray would then call all of them on an event loop.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """What all the actors that it starts ask for."""
        recipe = load_recipe(config["recipe"])
        if is_finished(recipe, 3) or given_up(recipe):
            return tune.PlacementGroupFactory([_NEXT_TO_NOTHING])
        return tune.PlacementGroupFactory([{}, *bundles(recipe)])

    def __repr__(self) -> str:
        return self._name  # before its lines in the job's log

    def setup(self, config: dict[str, Any]) -> None:
        """Read the recipe."""
        quiet()
        recipe = load_recipe(config["recipe"])
        self._name = RunFolder.of(recipe).path.name
        self._job = TrialJob(recipe)
        names_begin_with(f"{self._name}.")

    def step(self) -> dict[str, Any]:
        """Take a step; see `TrialJob`."""
        return self._job.next()

    def cleanup(self) -> None:
        """Give up the job, where Tune ends the trial by itself."""
        self._job.close()
