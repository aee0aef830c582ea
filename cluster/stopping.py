"""How a job is told to end early: SIGTERM, which is what `ray job stop` sends, or Ctrl-C.

Who has something to save is told, and has a while for it; anything else is given up at once, to be done again. A second
signal ends the process there and then: Ray ends the actors of a driver that is gone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

from cluster.stopped import Stopped

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_before_it_began() -> Iterator[None]:
    """A signal interrupts this block, which prepares a job and has nothing to lose. Raises Stopped then."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped before it began; the same command begins it") from None
    finally:
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:  # and not what `ray.init()` put there
            signal.signal(signal.SIGTERM, before)


@asynccontextmanager
async def until_told_to_stop(stop: Callable[[], object] | None = None, seconds: float = 0.0) -> AsyncIterator[None]:
    """At a signal, `stop` is called, upon which this block is to end; what it is at is given up `seconds` later.

    Raises Stopped where it was given up, after all in it has been closed. To be opened after `ray.init()`, which takes
    SIGTERM for itself.
    """

    def told() -> None:
        if stop is not None:
            stop()
        limit.reschedule(asyncio.get_running_loop().time() + seconds)

    try:
        async with asyncio.timeout(None) as limit:
            with _told(told, "now" if stop is None else "after the step that is under way"):
                yield
    except TimeoutError:
        if not limit.expired():
            raise
        late = "" if stop is None else f" within a step, which took more than {seconds:.0f} s (rl.seconds_per_wait)"
        raise Stopped(f"stopped{late}; the same command goes on from what is on disk") from None


@contextmanager
def _told(told: Callable[[], None], when: str) -> Iterator[None]:
    """Within the block the first signal has `told` called on the event loop; the next one has its own effect."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    came: int | None = None
    scheduled: asyncio.Handle | None = None
    called = False

    def call(number: int) -> None:
        nonlocal called
        called = True
        logger.warning("%s: stopping %s; a second one ends the process at once", signal.Signals(number).name, when)
        told()

    # Not the loop's own handlers: those wait while a computation holds it, and so would the second signal.
    def handle(number: int, _: FrameType | None) -> None:
        nonlocal came, scheduled
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        came, scheduled = number, loop.call_soon_threadsafe(call, number)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        if not called:  # else the job is on its way out, where a signal is the second one
            for number, handler in before.items():
                signal.signal(number, handler)
            if came is not None and scheduled is not None:  # in the last moment: it is for the block around this one
                scheduled.cancel()
                signal.raise_signal(came)
