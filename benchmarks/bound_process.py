"""Work in a process of its own that is kept on some cores from its first moment, as the actors of a run are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

from cluster.allocator import allocator_environment
from cluster.quiet import ENVIRONMENT

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as an actor with a core of its own has it


def bound(cores: str, function: str, *given: object, allocator: Mapping[str, str] | None = None) -> Any:
    """What a function returns or raises; `cores` are numbers with commas between, `allocator` is an actor's by default.

    It is named, `package.module.function`, so that what it imports is imported there alone.
    """
    before = os.sched_getaffinity(0)
    chosen = allocator_environment(0) if allocator is None else allocator
    with (
        patch.dict(os.environ, {**ENVIRONMENT, **_ONE_THREAD, **chosen}),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})  # what is started here inherits it
        try:
            running = process.submit(_call, function, *given)
        finally:
            os.sched_setaffinity(0, before)
        return running.result()


def _call(function: str, *given: object) -> Any:
    module, _, name = function.rpartition(".")
    return getattr(import_module(module), name)(*given)
