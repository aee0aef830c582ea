"""Waits on Ray that end: with the result, with the cause, or with a time limit that says who was waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

# What a call of an actor raises whose process is gone; the second where Ray ended it for its node's want of memory.
ACTOR_LOST = (RayActorError, OutOfMemoryError)


class WaitedTooLong(RuntimeError):
    """A wait reached its limit; the message names what was waited for and the setting to change."""


async def within(reference: ray.ObjectRef, seconds: float, what: str, setting: str = "rl.seconds_per_wait") -> Any:
    """The value of a reference. Raises WaitedTooLong after `seconds`, which `setting` gave, or what the task raised."""
    try:
        async with asyncio.timeout(seconds):  # and not wait_for, which on Python 3.11 makes a task for each wait
            return await reference
    except RayTaskError as error:
        raise error.cause from error  # as itself; its trace in the actor is `error`'s text
    except TimeoutError:
        raise WaitedTooLong(f"waited {seconds:.0f} s for {what}: look at its log, or raise {setting}") from None


async def together(*parts: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of coroutines that run at once; where one fails, the others are cancelled and its error raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failures:
        failure = first_of(failures)
        raise failure from failure.__cause__
    return [task.result() for task in tasks]


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure in a group, however deep; it is what the others were cancelled for."""
    failure = failures.exceptions[0]
    return first_of(failure) if isinstance(failure, BaseExceptionGroup) else failure
