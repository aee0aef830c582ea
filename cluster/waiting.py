"""Waits on Ray that end: with the result, with the cause, or with a time limit that says who was waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import ray


class WaitedTooLong(RuntimeError):
    """A wait reached its limit; the message names what was waited for and the setting to change."""


async def within(reference: ray.ObjectRef, seconds: float, what: str) -> Any:
    """The value of a reference. Raises WaitedTooLong after `seconds`, or what the task raised."""

    async def value() -> Any:
        return await reference

    try:
        return await asyncio.wait_for(value(), seconds)
    except TimeoutError:
        raise WaitedTooLong(
            f"waited {seconds:.0f} s for {what}: look at its log, or raise rl.seconds_per_wait"
        ) from None
