"""A process kept on some of its machine's cores."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

from configs.cores import core_list, core_numbers

_THREADS = "/proc/self/task"


def keep_on(cores: str, worker: str, setting: str) -> None:
    """Keep this process's threads on `cores`, and with them whatever threads and processes they start.

    Raises ValueError, which names the worker, its node and the setting, where that cannot be done.
    """
    who = f"{worker} on node {socket.gethostname()}: {setting} says {cores}"
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"{who}, and {sys.platform} does not let a process choose its cores; set it to null")
    wanted, there = core_numbers(cores), os.sched_getaffinity(0)
    if missing := wanted - there:
        raise ValueError(
            f"{who}, and {core_list(missing)} is not among the cores its process may use, which are "
            f"{core_list(there)}; change the entry, or set {setting} to null"
        )
    # Linux binds threads, not processes, and Ray and numpy have started some. Until no new ones turn up: a thread
    # that was not yet bound may have started another.
    bound: set[str] = set()
    while new := set(os.listdir(_THREADS)) - bound:
        for thread in new:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), wanted)
        bound |= new
