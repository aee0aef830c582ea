"""tcmalloc is put before an actor's other libraries where it is found and the actor computes on CPUs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from unittest.mock import Mock

import pytest

import cluster.allocator
from benchmarks.allocator import Trained, compared
from cluster.allocator import allocator_environment
from cluster.learners import _actor
from configs.schema import Learner


def found(monkeypatch: pytest.MonkeyPatch, libraries: Mapping[str, str]) -> None:
    monkeypatch.setattr(cluster.allocator, "find_library", libraries.get)


def test_the_small_library_comes_before_the_one_with_profilers(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, {"tcmalloc": "libtcmalloc.so.4", "tcmalloc_minimal": "libtcmalloc_minimal.so.4"})
    monkeypatch.delenv("LD_PRELOAD", raising=False)

    assert allocator_environment(0) == {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}


def test_what_the_user_preloads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, {"tcmalloc": "libtcmalloc.so.4"})
    monkeypatch.setenv("LD_PRELOAD", "libiomp5.so")

    assert allocator_environment(0) == {"LD_PRELOAD": "libtcmalloc.so.4:libiomp5.so"}


@pytest.mark.parametrize(("libraries", "gpus"), [({}, 0.0), ({"tcmalloc": "libtcmalloc.so.4"}, 0.5)])
def test_without_it_and_on_gpus_the_environment_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, libraries: Mapping[str, str], gpus: float
) -> None:
    found(monkeypatch, libraries)

    assert allocator_environment(gpus) == {}


@pytest.mark.parametrize(("gpus", "preloaded"), [(0.0, "libtcmalloc.so.4"), (1.0, None)])
def test_a_learner_rank_on_cpus_gets_it(monkeypatch: pytest.MonkeyPatch, gpus: float, preloaded: str | None) -> None:
    found(monkeypatch, {"tcmalloc": "libtcmalloc.so.4"})
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    kind = Mock()

    _actor(kind, Learner(gpus_per_rank=gpus, threads_per_rank=2), "learner-0", {})

    variables = kind.options.call_args.kwargs["runtime_env"]["env_vars"]
    assert (variables.get("LD_PRELOAD"), variables["OMP_NUM_THREADS"]) == (preloaded, "2")


def test_the_dynamic_linker_finds_by_name_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, {"tcmalloc": cluster.allocator.find_library("util") or ""})  # a library that every Linux has

    loaded = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/maps').read())"],
        env=allocator_environment(0),
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stderr == ""
    assert "libutil" in loaded.stdout


def test_the_benchmarks_ratios_are_of_the_two_processes_of_a_repeat() -> None:
    plain = [Trained(100.0, 0.2, 4.0), Trained(50.0, 0.3, 4.0), Trained(200.0, 0.1, 5.0)]
    kept = [Trained(110.0, 0.0, 5.0), Trained(100.0, 0.0, 2.0), Trained(300.0, 0.0, 5.0)]

    faster, memory = compared(plain, kept)[-2:]

    assert (faster.lowest, faster.median, faster.highest) == (1.1, 1.5, 2.0)
    assert (memory.lowest, memory.median, memory.highest) == (0.5, 1.0, 1.25)
