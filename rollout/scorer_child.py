"""The child's side of `rollout.scorer_process`: makes the user's scorer, and answers until the pipe is closed.

    python -m rollout.scorer_child PACKAGE.MODULE:CLASS PIPE PARENT SECONDS GIB

Messages are JSON. What comes in is [number, answer, reference], the question's number and two texts; what goes out is
{"ready": true} once, then {"number": the question's, "score": a number} or {"number", "failure": a text} for each.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

from rollout.lifeline import end_with

TRACE_CHARACTERS = 2000  # of the end of a trace, which says most
SECONDS_OF_GRACE = 2.0  # for the parent to end a call that takes too long
OWN_PROCESS = os.getpid()  # what the scorer forks has another

Scorer = Callable[[str, str], object]


def main() -> None:
    """Answer the parent's questions."""
    name, pipe, parent, seconds, gib = sys.argv[1:]
    os.set_inheritable(int(pipe), False)  # what the scorer starts must not hold it open
    connection = Connection(int(pipe))
    end_with(int(parent))
    signal.signal(signal.SIGTERM, lambda *_: None)  # sent to all of a job that is told to stop; the parent ends us
    try:
        scorer = _made(name)
    except Exception as error:  # noqa: BLE001  # goes to the parent, which raises it
        _send(connection, {"failure": _trace(error)})
        return
    _limit_memory(float(gib))
    _send(connection, {"ready": True})
    while (question := _next(connection)) is not None:
        number, *texts = question
        _send(connection, {"number": number, **_answer(scorer, texts, float(seconds))})


def _made(name: str) -> Scorer:
    module, _, kind = name.partition(":")
    scorer: Scorer = getattr(import_module(module), kind)()
    if not callable(scorer):
        raise TypeError(f"{name} makes an object that cannot be called; give it __call__(self, answer, reference)")
    return scorer


def _limit_memory(gib: float) -> None:
    """Of address space, beyond what the process has already."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _next(connection: Connection) -> tuple[int, str, str] | None:
    try:
        number, answer, reference = json.loads(connection.recv_bytes())
    except EOFError:
        return None
    return number, answer, reference


def _answer(scorer: Scorer, question: Sequence[str], seconds: float) -> dict[str, object]:
    # The kernel's own alarm: a regular expression that runs away holds the interpreter, so that no thread of ours,
    # the lifeline neither, could end this process were the parent gone.
    signal.setitimer(signal.ITIMER_REAL, seconds + SECONDS_OF_GRACE)
    try:
        return {"score": _number(scorer(*question))}
    except Exception as error:  # noqa: BLE001  # goes to the parent, which raises it
        return {"failure": _trace(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _number(score: object) -> float:
    if not isinstance(score, SupportsFloat | SupportsIndex):  # a text is neither, though `float` reads it
        raise TypeError(f"it returned {score!r:.100}, expected a number in [0, 1]")
    return float(score)


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-TRACE_CHARACTERS:].strip()


def _send(connection: Connection, message: dict[str, object]) -> None:
    if os.getpid() != OWN_PROCESS:
        os._exit(0)  # a fork of the scorer's that came back here: one process answers
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main()
