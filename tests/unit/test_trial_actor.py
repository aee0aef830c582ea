"""A trial as Ray Tune sees it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from cluster import actor_names
from cluster.sweep import read_sweep
from cluster.trial_actor import TrialActor
from cluster.trials import Trial, bundles, give_up, planned
from configs.load import write_resolved

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    found = planned(DEMO, read_sweep([f"output={tmp_path}", "seed=1,2"]), None, 0, stopping=True)[0]
    write_resolved(found.recipe, found.run.recipe)
    found.run.stage(3).path.mkdir()
    return found


def test_tune_reserves_what_the_actors_of_a_trial_ask_for(trial: Trial) -> None:
    asked = TrialActor.default_resource_request({"recipe": str(trial.run.recipe)})

    assert asked.head_bundle_is_empty  # the trial's own process only waits
    assert asked.bundles == [{"CPU": bundle["CPU"]} for bundle in bundles(trial.recipe)]


def test_for_a_trial_that_has_ended_next_to_nothing_is_reserved(trial: Trial) -> None:
    give_up(trial.recipe)

    asked = TrialActor.default_resource_request({"recipe": str(trial.run.recipe)})

    assert asked.required_resources == {"CPU": 0.01}


def test_the_actors_of_a_trial_are_named_after_it(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_names, "_beginning", "")
    made = TrialActor.__new__(TrialActor)  # without what Tune's constructor adds

    made.setup({"recipe": str(trial.run.recipe)})

    assert repr(made) == "seed-1"
    assert actor_names.next_name("place-of-this-trial-0") == "seed-1.place-of-this-trial-0"
    made.cleanup()


def test_no_method_is_a_coroutine_for_ray_would_call_all_of_them_on_an_event_loop() -> None:
    assert inspect.getmembers(TrialActor, inspect.iscoroutinefunction) == []
