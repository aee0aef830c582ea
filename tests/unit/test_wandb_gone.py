"""Weights & Biases that was there, and is gone in the middle of a run: its server, or its process on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb

from cluster import wandb_run
from cluster.run_log import Column, RunLog
from configs.load import load_recipe
from configs.schema import Recipe

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
# What wandb's client asks of a server to begin a run, and what it is answered.
ANSWERS = {
    "Viewer": {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
    "RunResumeStatus": {"model": None},
    "UpsertBucket": {
        "upsertBucket": {
            "bucket": {
                "id": "b",
                "name": "r",
                "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}},
            },
            "inserted": True,
        }
    },
    "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
}
KILLED = """
import sys
from contextlib import suppress
from pathlib import Path
import psutil
from tests.unit.test_wandb_gone import COLUMNS, recipe
from cluster.run_log import RunLog
with RunLog(Path(sys.argv[1]), "stage3", COLUMNS, recipe("offline")) as run:
    run.log({"reward": 0.25}, 1)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(psutil.Process().children(recursive=True))
    run.log({"reward": 0.5}, 2)
    run.log({"reward": 0.75}, 3)
"""
COLUMNS = (Column("reward", "reward", 3),)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    gone = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.gone:
            self.close_connection = True
            return
        data = ANSWERS.get(json.loads(body)["operationName"], {}) if self.path == "/graphql" else {}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def recipe(mode: str) -> Recipe:
    return load_recipe(DEMO, [f"wandb.mode={mode}"])


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "elsewhere"))
    with Server(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        wandb.teardown()  # whose process has other variables
        yield server
        wandb.teardown()
        server.shutdown()
        thread.join()


def test_a_server_that_goes_away_holds_up_neither_a_step_nor_the_end(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_run, "SECONDS_TO_FINISH", 2.0)

    with RunLog(tmp_path, "stage3", COLUMNS, recipe("online")) as run:  # without a limit it hangs here for minutes
        run.log({"reward": 0.25}, 1)
        server.gone = True
        run.log({"reward": 0.5}, 2)

    assert steps(tmp_path) == [1, 2]


def test_the_death_of_wandbs_own_process_costs_its_lines_and_not_the_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=DEMO.parents[2], capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert "WEIGHTS & BIASES FAILED" in done.stderr
    assert steps(tmp_path) == [1, 2, 3]
