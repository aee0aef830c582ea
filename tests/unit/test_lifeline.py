"""A process tied to another by `end_with` does not outlive it."""

from __future__ import annotations

import subprocess
import sys

TIED = """
import sys, time
from rollout.lifeline import end_with
end_with(int(sys.argv[1]))
print(flush=True)
time.sleep(60)
"""


def test_a_tied_process_ends_when_the_other_is_killed() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with subprocess.Popen([sys.executable, "-c", TIED, str(other.pid)], stdout=subprocess.PIPE) as tied:
        assert tied.stdout is not None
        tied.stdout.readline()
        assert tied.poll() is None

        other.kill()  # not waited for: the tied one must not need that

        assert tied.wait(timeout=60) == 1
    other.wait()
