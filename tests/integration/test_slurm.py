"""cluster/deploy/slurm.sh with the real Ray: a head, a job and its end. Slurm is a line or two that do as told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

SCRIPT = Path(__file__).parents[2] / "cluster" / "deploy" / "slurm.sh"
SECONDS_TO_START = 600
TOOLS = {
    "srun": '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": "#!/bin/bash\necho 127.0.0.1\n",
    # A run that takes longer to end than the 3 s which Ray gives a job by itself.
    "caliber": f"""#!{sys.executable}
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(5)
    pathlib.Path("ended").write_text(" ".join(sys.argv[1:]))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("running").touch()
time.sleep(300)
""",
}

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


@pytest.fixture
def job_id() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    yield name
    shutil.rmtree(f"/tmp/caliber-{name}", ignore_errors=True)


def test_a_job_that_slurm_wants_to_end_has_its_time_and_leaves_nothing_behind(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "bin").mkdir()
    for name, code in TOOLS.items():
        (tmp_path / "bin" / name).write_text(code)
        (tmp_path / "bin" / name).chmod(0o755)
    port, dashboard_port = _free_ports()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NODELIST": "one",
        "SLURM_CPUS_PER_TASK": "1",
        "RAY_PORT": str(port),
        "RAY_DASHBOARD_PORT": str(dashboard_port),
    }

    with subprocess.Popen(["bash", SCRIPT, "recipe.yaml", "name=a b"], env=environment, cwd=tmp_path) as script:
        try:
            _wait_for(tmp_path / "running", script)
            without_token = _get(f"http://127.0.0.1:{dashboard_port}/api/jobs/")
        finally:
            script.send_signal(signal.SIGTERM)
        code = script.wait(SECONDS_TO_START)

    assert without_token == 401
    assert code == 0
    assert (tmp_path / "ended").read_text() == "pipeline recipe.yaml name=a b"
    assert list((tmp_path / ".ray").iterdir()) == []
    # Ray leaves when it has told its processes to end, and not only then when they have.
    give_up = time.monotonic() + SECONDS_TO_START
    while _listens(port) or _listens(dashboard_port):
        assert time.monotonic() < give_up, "something still listens"
        time.sleep(0.2)


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for found in (one, other):
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in (one, other)]


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _get(url: str) -> int:
    """The status of the answer."""
    return urllib3.request("GET", url, retries=False, timeout=10).status


def _wait_for(file: Path, script: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + SECONDS_TO_START
    while not file.exists():
        assert script.poll() is None, "the script has ended"
        assert time.monotonic() < give_up, "the job has not started"
        time.sleep(0.2)
