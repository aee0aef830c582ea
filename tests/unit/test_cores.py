"""Lists of cores, who is dealt which, and a process that keeps to its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cluster.learner_actors
from cluster.cores import keep_on
from configs.cores import core_list, core_numbers
from configs.document import RecipeError
from configs.load import load_recipe
from configs.placement import Deal, engine_of, learner_of
from configs.schema import Engine, Learner

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
ONE, *_ = sorted(os.sched_getaffinity(0))
NONE_SUCH = 99_999


@pytest.mark.parametrize(
    ("text", "cores"), [("1", {1}), ("0-3", {0, 1, 2, 3}), ("0-1,8,6-7", {0, 1, 6, 7, 8}), ("2-2,2", {2})]
)
def test_a_list_names_numbers_and_ranges(text: str, cores: set[int]) -> None:
    assert core_numbers(text) == cores


@given(st.frozensets(st.integers(0, 200), min_size=1))
def test_a_written_list_reads_as_the_same_cores(cores: frozenset[int]) -> None:
    assert core_numbers(core_list(cores)) == cores


def test_a_list_is_written_as_short_as_can_be() -> None:
    assert core_list([9, 3, 1, 2, 7]) == "1-3,7,9"


@pytest.mark.parametrize("text", ["", "0-", "-1", "0 1", "0;1", "a", "0-3-5", "1,", "1000000"])
def test_what_is_no_list_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected numbers and ranges of cores such as 0-15"):
        core_numbers(text)


def test_a_range_that_runs_backwards_is_named() -> None:
    with pytest.raises(ValueError, match="5-3 ends before it begins"):
        core_numbers("0,5-3")


@pytest.mark.parametrize("key", ["engine.cores", "learner.cores"])
def test_a_wrong_entry_of_a_recipe_is_refused_at_its_place(key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(DEMO, [f"{key}=['0-1', '0-']"])

    assert str(caught.value) == (
        f"override: {key}.1: got '0-', expected numbers and ranges of cores such as 0-15 or 0-3,8"
    )


def test_a_placement_without_entries_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"engine\.cores: got a list of 0; expected list of text or null"):
        load_recipe(DEMO, ["engine.cores=[]"])


def test_workers_of_a_node_take_the_entries_in_turn_whatever_their_numbers() -> None:
    deal = Deal(("0-3", "4-6"))

    dealt = [deal.cores(worker, node) for worker, node in enumerate("aabbba")]

    assert dealt == ["0-3", "4-6", "0-3", "4-6", "0-3", "0-3"]


def test_a_worker_that_comes_again_gets_its_own_entry_or_one_that_is_free_on_its_new_node() -> None:
    deal = Deal(("0", "1"))
    for worker, node in enumerate("aab"):
        deal.cores(worker, node)

    assert deal.cores(1, "a") == "1"
    assert deal.cores(0, "b") == "1"
    assert deal.cores(3, "a") == "0"


def test_without_entries_nothing_is_dealt() -> None:
    assert Deal(None).cores(0, "a") is None


def test_a_worker_has_a_thread_for_each_of_its_cores_where_no_number_is_set() -> None:
    given = engine_of(Engine(cores=("0-3", "4-6")), "4-6")

    assert (given.cores, given.threads_per_worker) == (("4-6",), 3)
    assert engine_of(Engine(cores=("0-3",), threads_per_worker=2), "0-3").threads_per_worker == 2
    assert engine_of(Engine(cores=("0-3",), tensor_parallel=2), "0-3").threads_per_worker == 2  # of each process
    assert learner_of(Learner(cores=("0-3",)), "0-3").threads_per_rank == 4
    assert engine_of(Engine(), None) == Engine()
    assert learner_of(Learner(), None) == Learner()


@pytest.mark.parametrize(("threads", "on_cpus", "taken"), [(None, True, [3]), (2, True, [2]), (None, False, [])])
def test_a_rank_on_cpus_looks_how_many_cores_its_own_node_lets_it_use(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, on_cpus: bool, taken: list[int]
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7})
    monkeypatch.setattr(cluster.learner_actors, "quiet", lambda: None)

    cluster.learner_actors._LearnerShell(threads, on_cpus)

    assert set_to == taken


def test_threads_old_and_new_and_children_keep_to_the_cores_of_their_process() -> None:
    script = f"""
        import json, os, subprocess, sys, threading
        from cluster.cores import keep_on

        release, found = threading.Event(), []
        def old():
            release.wait()
            found.append(sorted(os.sched_getaffinity(0)))
        thread = threading.Thread(target=old)
        thread.start()
        keep_on("{ONE}", "rollout-0", "engine.cores")
        release.set()
        thread.join()
        new = threading.Thread(target=old)
        new.start()
        new.join()
        child = "import os; print(sorted(os.sched_getaffinity(0)))"
        found.append(json.loads(subprocess.check_output([sys.executable, "-c", child])))
        print(json.dumps(found))
    """

    told = subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[2])

    assert json.loads(told) == [[ONE]] * 3


def test_a_rollout_worker_is_on_its_cores_before_vllm_starts() -> None:
    script = f"""
        import asyncio, json, os, sys
        from contextlib import suppress
        from types import SimpleNamespace
        from cluster.rollout_actor import RolloutWorker
        from configs.schema import Engine
        from rollout.chat import ImageLimits
        from rollout.engine_setup import EngineSetup

        found = []
        async def start(*_, **__):
            found.append(sorted(os.sched_getaffinity(0)))
            raise InterruptedError
        sys.modules["rollout.vllm_engine"] = SimpleNamespace(VllmEngine=SimpleNamespace(start=start))
        for cores in (None, ("{ONE}",)):
            with suppress(InterruptedError):
                asyncio.run(RolloutWorker("rollout-0").start(EngineSetup("", Engine(cores=cores), ImageLimits())))
        print(json.dumps(found))
    """

    told = subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[2])

    assert json.loads(told) == [sorted(os.sched_getaffinity(0)), [ONE]]


def test_a_core_that_is_not_there_is_an_error_that_names_worker_node_cores_and_setting() -> None:
    before = os.sched_getaffinity(0)

    with pytest.raises(ValueError, match=r"rollout-3 on node \S+: engine\.cores says .*set engine\.cores") as caught:
        keep_on(f"{ONE},{NONE_SUCH}", "rollout-3", "engine.cores")

    assert f"{NONE_SUCH} is not among" in str(caught.value)
    assert f"which are {core_list(before)};" in str(caught.value)
    assert os.sched_getaffinity(0) == before


def test_a_platform_that_binds_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")

    with pytest.raises(ValueError, match=r"does not let a process choose its cores; set it to null"):
        keep_on(str(ONE), "learner-0", "learner.cores")
