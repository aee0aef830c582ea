"""Which cores each worker's processes are kept on, and what of that cannot work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from configs.cores import core_numbers
from configs.schema import Engine, Learner, Recipe


class Deal:
    """A list of cores, dealt out on each node apart: whoever comes to one gets the entry that fewest there have."""

    def __init__(self, cores: tuple[str, ...] | None) -> None:
        self._cores = cores
        self._held: dict[int, tuple[str, int]] = {}  # by number of the worker: its node, and which entry

    def cores(self, worker: int, node: str) -> str | None:
        """Those of a worker that is on this node now; None where there is no list."""
        self._held.pop(worker, None)
        if self._cores is None:
            return None
        taken = Counter(entry for on, entry in self._held.values() if on == node)
        entry = min(range(len(self._cores)), key=lambda entry: taken[entry])
        self._held[worker] = node, entry
        return self._cores[entry]


def engine_of(engine: Engine, own: str | None) -> Engine:
    """The settings as they are for a worker that is kept on these cores.

    Where it is and `threads_per_worker` is not set, a thread for each core.
    """
    if own is None:
        return engine
    threads = engine.threads_per_worker or max(1, len(core_numbers(own)) // engine.tensor_parallel)
    return engine.model_copy(update={"cores": (own,), "threads_per_worker": threads})


def learner_of(learner: Learner, own: str | None) -> Learner:
    """The same for a learner rank and `threads_per_rank`."""
    if own is None:
        return learner
    threads = learner.threads_per_rank or len(core_numbers(own))
    return learner.model_copy(update={"cores": (own,), "threads_per_rank": threads})


def core_problems(recipe: Recipe) -> Iterator[str]:
    """Placements that cannot be meant."""
    engine, learner = recipe.engine, recipe.learner
    yield from _unused("engine.cores", engine.cores, "engine.workers", engine.most_workers)
    yield from _unused("learner.cores", learner.cores, "learner.ranks", learner.ranks)
    if engine.gpus_per_worker == 0:  # elsewhere the number of threads is vLLM's
        threads = (engine.threads_per_worker or 1) * engine.tensor_parallel
        yield from _crowded("engine.cores", engine.cores, "engine.threads_per_worker", threads)
    yield from _crowded("learner.cores", learner.cores, "learner.threads_per_rank", learner.threads_per_rank or 1)


def _unused(key: str, cores: tuple[str, ...] | None, workers_key: str, workers: int) -> Iterator[str]:
    if cores is not None and len(cores) > workers:
        yield (
            f"{key}: {len(cores)} entries for {workers_key} {workers}, and each worker is kept on one; "
            "leave some out, or join them into one"
        )


def _crowded(key: str, cores: tuple[str, ...] | None, threads_key: str, threads: int) -> Iterator[str]:
    for entry in cores or ():
        if len(core_numbers(entry)) < threads:
            yield (
                f"{key}: {threads} threads ({threads_key}) are more than the cores of {entry!r} and would wait for "
                "each other; name more cores, or lower the threads"
            )
