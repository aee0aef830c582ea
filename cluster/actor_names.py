"""What an actor is called: in Ray's dashboard, in `ray list actors`, and before its lines in the job's log."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import ray

_used: Counter[str] = Counter()
_beginning = ""


def namespace_of(run: str) -> str:
    """A Ray namespace for a job of a run: names in it are nobody else's, not even an earlier job's of the same run."""
    return f"{run}-{uuid4().hex[:8]}"


def names_begin_with(text: str) -> None:
    """Have the names of all actors that this process starts begin so: jobs that share a namespace are told apart."""
    global _beginning
    _beginning = text


def next_name(place: str) -> str:
    """The name of the next actor at a place of this job's, `rollout-0`; then `rollout-0.1`, `rollout-0.2`.

    Ray sets the name of a killed actor free some time later, so that its successor could come too early for it.
    """
    start = _used[place]
    _used[place] += 1
    return f"{_beginning}{place}.{start}" if start else f"{_beginning}{place}"


class NamedActor:
    """An actor class whose lines in the log begin with the actor's name, and not its class's."""

    def __repr__(self) -> str:
        name = ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None  # asked, Ray would start
        return name or super().__repr__()
