"""`caliber report` and `caliber view` as processes of their own: their output, their pipes, and their end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from tests.unit.report_run import made_run

pytestmark = pytest.mark.integration

CALIBER = [sys.executable, "-m", "cluster"]
SECONDS = 500.0  # for what takes seconds: a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("commands"), groups=400)


def test_a_report_is_written_and_its_place_and_size_are_told(run: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [*CALIBER, "report", str(run), "--out", str(tmp_path / "r.html")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"{tmp_path}/r.html: ")
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")


def takes_ctrl_c() -> None:
    """What a shell starts in the background is born deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_live_report_answers_until_ctrl_c(run: Path) -> None:
    with subprocess.Popen(
        [*CALIBER, "report", "--live", "--port", "0", str(run)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=takes_ctrl_c,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0]
            found = urllib3.request("GET", address, timeout=SECONDS, retries=False)
        finally:
            process.send_signal(signal.SIGINT)
        code = process.wait(SECONDS)

    assert (found.status, code) == (200, 0)


def test_a_reader_that_has_enough_ends_the_viewer_without_a_word(run: Path) -> None:
    with subprocess.Popen([*CALIBER, "view", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        header = process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()
        code = process.wait(SECONDS)

    assert header.startswith(b"source\tprompt\t")
    assert (code, complaint) == (0, b"")
