"""Which cores each worker's processes are kept on, and what of that cannot work."""

from __future__ import annotations

from collections.abc import Iterator

from configs.cores import core_numbers
from configs.schema import Engine, Learner, Recipe


def engine_of(engine: Engine, worker: int) -> Engine:
    """The settings as they are for the worker of this index: of `cores` its own entry alone.

    Where it has one and `threads_per_worker` is not set, a thread for each core.
    """
    if engine.cores is None:
        return engine
    own = engine.cores[worker % len(engine.cores)]
    threads = engine.threads_per_worker or max(1, len(core_numbers(own)) // engine.tensor_parallel)
    return engine.model_copy(update={"cores": (own,), "threads_per_worker": threads})


def learner_of(learner: Learner, rank: int) -> Learner:
    """The same for a learner rank and `threads_per_rank`."""
    if learner.cores is None:
        return learner
    own = learner.cores[rank % len(learner.cores)]
    threads = learner.threads_per_rank or len(core_numbers(own))
    return learner.model_copy(update={"cores": (own,), "threads_per_rank": threads})


def core_problems(recipe: Recipe) -> Iterator[str]:
    """Placements that cannot be meant."""
    engine, learner = recipe.engine, recipe.learner
    yield from _unused("engine.cores", engine.cores, "engine.workers", engine.workers)
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
