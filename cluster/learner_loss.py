"""A lost learner rank takes the others with it, which wait for it in every step: the stage starts them all again.

It goes on from its last checkpoint, as a job does that was killed and given again; the steps since are taken again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import ObjectLostError

from cluster.checkpoints import CheckpointFolder
from cluster.waiting import ACTOR_LOST, WaitedTooLong

logger = logging.getLogger(__name__)

SECONDS_TO_TELL = 10.0  # a lost rank's peers see its connection end before Ray says that its process has

_LIMIT = re.compile("timed out|timeout", re.IGNORECASE)  # what gloo and torch's store say of a wait that came to it


class LearnerLost(RuntimeError):
    """The process of a learner rank has ended, or its node has; the message names the rank."""


# Groups and weights lie in the memory of the nodes that made them, and are lost with these.
_LOSSES = (LearnerLost, ObjectLostError)


async def results_of(
    calls: Mapping[str, asyncio.Task[Any]], method: str, seconds_per_collective: float = math.inf
) -> list[Any]:
    """The results of a method's calls, by the ranks' names.

    Raises LearnerLost, or WaitedTooLong with the names of those that the others waited for, or else what the first to
    fail raised. Where one fails, the others have `SECONDS_TO_TELL` more.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        done, others = await asyncio.wait(calls.values(), return_when=asyncio.FIRST_EXCEPTION)
        waited = clock() - began >= seconds_per_collective  # so may a process that was lost have: NCCL ends it for that
        if others and (waited or not any(isinstance(call.exception(), ACTOR_LOST) for call in done)):
            await asyncio.wait(others, timeout=SECONDS_TO_TELL)
        hanging = [name for name, call in calls.items() if _hangs(call)]
        _raise_loss(calls, method, hanging if waited else [])
        for name, call in calls.items():
            if call in done:
                _raise_limit(name, call.exception(), method, hanging)
                call.result()  # raises
        return [call.result() for call in calls.values()]
    finally:
        for call in calls.values():
            call.cancel()
        await asyncio.gather(*calls.values(), return_exceptions=True)  # each failure is looked at


def _hangs(call: asyncio.Task[Any]) -> bool:
    return not call.done() or isinstance(call.exception(), WaitedTooLong)


def _raise_loss(calls: Mapping[str, asyncio.Task[Any]], method: str, hanging: Sequence[str]) -> None:
    """Raise LearnerLost where a rank was lost, maybe for having waited for those that hang."""
    why = f", as it waited for {', '.join(hanging)} or by itself" if hanging else ""
    for name, call in calls.items():
        if call.done() and isinstance(error := call.exception(), ACTOR_LOST):
            raise LearnerLost(f"{name} was lost in `{method}`{why}: {error}") from error


def _raise_limit(name: str, error: BaseException | None, method: str, hanging: Sequence[str]) -> None:
    """Raise WaitedTooLong with the names of those that did not come to an end, where this one's error is a limit."""
    names = ", ".join(hanging)
    if isinstance(error, WaitedTooLong) and len(hanging) > 1:
        raise WaitedTooLong(
            f"waited too long for {names} to {method}: look at their logs, or raise rl.seconds_per_wait"
        ) from error
    if isinstance(error, RuntimeError) and _LIMIT.search(str(error)):
        raise WaitedTooLong(
            f"{name} waited in `{method}` for {names or 'its peers'}: look at the log there, or raise "
            f"rl.seconds_per_wait, of which it waits half: {error}"
        ) from error


async def through_losses(
    checkpoints: Path, stage: Callable[[], Awaitable[None]], clear: Callable[[], Awaitable[None]]
) -> None:
    """Run a stage; again, after `clear`, where something was lost that only its last checkpoint brings back.

    Where there is no new checkpoint since the loss before, it is raised: it would come again.
    """
    folder = CheckpointFolder(checkpoints, kept=0)  # is only asked which there are
    losses: list[Path | None] = []  # the newest checkpoint at each
    while True:
        try:
            return await stage()
        except (*_LOSSES, BaseExceptionGroup) as error:
            loss, newest = _loss_in(error), next(iter(folder.newest_first()), None)
            if loss is None or newest in losses:
                raise
            losses.append(newest)
            logger.error("the stage goes on from %s: %s", "the beginning" if newest is None else newest, loss)
        await clear()


def _loss_in(error: BaseException) -> BaseException | None:
    """The first loss in a failure, however deep; None where there is none."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, _LOSSES) else None
    return next((loss for inner in error.exceptions if (loss := _loss_in(inner)) is not None), None)
