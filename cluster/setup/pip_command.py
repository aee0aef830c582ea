"""pip of an environment: its words go to a log, a few of them to the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SECONDS_BETWEEN_LINES = 5.0
LINES_REPORTED = 15


class InstallError(Exception):
    """Set-up cannot go on; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of pip ended."""

    succeeded: bool
    output: str

    def report(self, what: str) -> str:
        """A message: what failed, and pip's last lines."""
        lines = self.output.strip().splitlines()[-LINES_REPORTED:]
        return "\n".join([f"{what}. pip's last lines:", *(f"    {line}" for line in lines)])


class PipLike(Protocol):
    """What set-up needs of pip."""

    def run(self, *arguments: str) -> Outcome:
        """Run one command of pip to its end."""


class Pip:
    """The real one."""

    def __init__(self, log: Path, python: str = sys.executable) -> None:
        """`log` takes all that pip says; `python` is the environment's, by default the running one."""
        self._log = log
        self._python = python
        self._command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        self._environment = {**os.environ, "PIP_PROGRESS_BAR": "off"}
        log.write_text("")

    def ensure(self) -> None:
        """Bring pip into an environment that was left half made. Raises InstallError."""
        if self.run("--version").succeeded:
            return
        made = subprocess.run([self._python, "-m", "ensurepip"], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise InstallError(f"this Python has no pip and cannot make one ({made.stderr.strip()}): install it")

    def offers(self, requirement: str) -> bool:
        """Whether pip finds a package that meets the requirement; nothing is installed."""
        return self.run("install", "--dry-run", "--no-deps", requirement).succeeded

    def run(self, *arguments: str) -> Outcome:
        """Run one command of pip to its end, with a line on the terminal every few seconds."""
        lines: list[str] = []
        started = shown = time.monotonic()
        with (
            self._log.open("a") as log,
            subprocess.Popen(
                [*self._command, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self._environment,
            ) as process,
        ):
            assert process.stdout is not None
            print("$ pip", *arguments, file=log)
            for line in process.stdout:
                lines.append(line)
                print(line, end="", file=log, flush=True)
                now = time.monotonic()
                if now - shown > SECONDS_BETWEEN_LINES:
                    shown = now
                    print(f"caliber: {now - started:4.0f} s  {line.strip()[:90]}", flush=True)
        return Outcome(process.returncode == 0, "".join(lines))
