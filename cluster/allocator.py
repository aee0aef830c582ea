"""The C library's memory allocator, changed for processes that compute on CPUs.

glibc gives what is larger than 32 MiB back to the kernel when it is freed, and the kernel zeroes every page of it when
it is asked for again. A learner's logits and gradients are that large and short-lived: a sixth of its time went there.
tcmalloc keeps such memory, and needs no more of it (`benchmarks.allocator`); glibc told to keep it, and jemalloc, grew
with every new shape. It is a library of the system, which no Python package has: without it all works, slower.
"""

from __future__ import annotations

import os
from ctypes.util import find_library

MISSING = (
    "missing: on CPUs training is faster with it, `apt-get install libtcmalloc-minimal4` or your system's gperftools"
)


def tcmalloc() -> str | None:
    """The name under which the dynamic linker finds it here, if it does."""
    return find_library("tcmalloc_minimal") or find_library("tcmalloc")


def allocator_environment(gpus: float) -> dict[str, str]:
    """Environment variables of an actor with this many GPUs, for its runtime environment.

    By name, not by path, and as found on this machine: nodes of one cluster are alike.
    """
    library = tcmalloc()
    if gpus or library is None:
        return {}
    return {"LD_PRELOAD": ":".join(filter(None, (library, os.environ.get("LD_PRELOAD"))))}
