"""A scorer of the user's in a process of its own: it may hang, raise, die or lie, and costs one call each time.

Only text goes in and only a number comes out: nothing is pickled, and nothing of a response is evaluated.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait

from rewards.parts import MatchError

logger = logging.getLogger(__name__)

STARTS = 3  # attempts to start a child, before the scorer is taken for broken
SECONDS_TO_START = 120.0  # large libraries are imported slowly on a busy machine
SECONDS_TO_END = 5.0  # from closing its files to being gone
REPLY_BYTES = 2**20  # far above a number, or the end of a trace
STDERR = 2  # the file itself: `sys.stderr` may have been replaced by what has none


class ScorerError(MatchError):
    """The scorer gave no number in [0, 1] for an answer."""


class UnusableScorer(ValueError):
    """The scorer cannot be made at all."""


class ScorerProcess:
    """A matcher that asks `package.module:Class`, made without arguments in a child process.

    The child finds modules where this process does, and in its working folder. It ends with this process.
    """

    def __init__(self, name: str, seconds: float, gib: float) -> None:
        """Start the child. `seconds` limit a call, `gib` the memory taken after the scorer was made.

        Raises UnusableScorer, with the cause, where the class cannot be imported or made.
        """
        self._arguments = (name, seconds, gib)
        self._name = name
        self._seconds = seconds
        self._lock = threading.Lock()  # the child answers one question at a time
        self._unusable: UnusableScorer | None = None
        self._child: _Child | None = self._started()

    def __call__(self, answer: str, reference: str, /) -> float:
        """The scorer's verdict. Raises ScorerError where it hangs, raises, dies, or gives no number in [0, 1].

        Raises UnusableScorer where no child can be started any more.
        """
        with self._lock:
            child = self._alive()
            try:
                reply = child.ask(answer, reference, self._seconds)
            except _Lost as lost:
                logger.warning("the process of the scorer %s is replaced: it %s", self._name, lost)
                self._end()
                raise ScorerError(f"the scorer {self._name} {lost}") from None
        score = reply.get("score")
        if type(score) is float and 0 <= score <= 1:
            return score
        cause = reply.get("failure", f"it returned {score!r:.100}, expected a number in [0, 1]")
        raise ScorerError(f"the scorer {self._name} failed: {cause}")

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _alive(self) -> _Child:
        if self._child is not None and self._child.has_ended():
            logger.warning("the process of the scorer %s has ended between two calls and is replaced", self._name)
            self._end()
        if self._child is None:
            self._child = self._started()
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _started(self) -> _Child:
        if self._unusable is not None:
            raise self._unusable
        cause = ""
        for _ in range(STARTS):
            child = _Child(*self._arguments)
            try:
                reply = child.reply(SECONDS_TO_START)
            except _Lost as lost:
                cause = f"its process {lost}, {STARTS} times in a row"
            else:
                if reply == {"ready": True}:
                    return child
                cause = str(reply.get("failure"))
                child.end()
                break  # it would fail again
            child.end()
        self._unusable = UnusableScorer(f"rewards.correctness: the scorer {self._name} cannot be made: {cause}")
        raise self._unusable


class _Lost(Exception):
    """The child hangs or has ended: what it did, as the end of a sentence."""


class _Child:
    """The process, its pipe, and a handle that becomes readable when it ends."""

    def __init__(self, name: str, seconds: float, gib: float) -> None:
        self._pipe, theirs = Pipe()
        handle = theirs.fileno()
        words = [name, str(handle), str(os.getpid()), str(seconds), str(gib)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rollout.scorer_child", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=STDERR,  # what a scorer prints is for people, and what this process prints may be for programs
            pass_fds=[handle],
            start_new_session=True,  # so that what the scorer starts can be ended with it
        )
        theirs.close()
        self._ended = os.pidfd_open(self._process.pid)
        self._asked = 0

    def ask(self, answer: str, reference: str, seconds: float) -> dict[str, object]:
        """The reply to a question. Raises _Lost, also where it is a reply to another one."""
        self._asked += 1
        with suppress(OSError):  # it has just ended, which is told in a moment
            self._pipe.send_bytes(json.dumps([self._asked, answer, reference]).encode())
        reply = self.reply(seconds)
        if reply.get("number") != self._asked:
            raise _Lost("gave an answer to another question than the last")
        return reply

    def reply(self, seconds: float) -> dict[str, object]:
        """The next message of the child. Raises _Lost where none comes in time, or one that is none of ours."""
        ready = wait([self._pipe, self._ended], seconds)
        if not ready:
            raise _Lost(f"gave no answer in {seconds:g} s")
        if self._pipe not in ready:
            raise _Lost(self._ending())
        try:
            message = json.loads(self._pipe.recv_bytes(REPLY_BYTES))
        except (EOFError, OSError):
            raise _Lost(self._ending()) from None
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise _Lost("wrote into the pipe that its answers come through")
        return message

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return bool(wait([self._ended], 0))

    def end(self) -> None:
        """Kill the process, and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()
        os.close(self._ended)

    def _ending(self) -> str:
        if not wait([self._ended], SECONDS_TO_END):
            return "closed the pipe that its answers come through"
        # Not reaped before it is killed: until then its number is no other process's.
        found = os.waitid(os.P_PIDFD, self._ended, os.WEXITED | os.WNOWAIT)
        assert found is not None, "it has ended"
        return f"{'exited with code' if found.si_code == os.CLD_EXITED else 'was ended by signal'} {found.si_status}"
