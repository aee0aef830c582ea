"""A judge that is slow, drips, is wrong, then gone, and comes back: simulated engines, real reward workers and Ray."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.simulated_cluster import Fleet
from benchmarks.stage3_run import ANSWERS, Settings, Stage3
from cluster.checkpoints import CheckpointFolder
from rollout.simulated import Simulation

pytestmark = pytest.mark.integration

GROUPS, STEPS = 8, 12
SECONDS_PER_REQUEST = 2.0  # long for a judge that is well, on a busy machine too
FAULTS = ("slow", "dripping", "wrong", "gone")
WELL, EACH = 64, 12  # questions before the first fault, and during each
SETTINGS = Settings(
    Fleet(4, Simulation(seconds_per_token=0.005), ANSWERS),
    prompts_per_step=GROUPS,
    max_policy_lag=2,
    steps=STEPS,
    warm_up_steps=1,
)


class FaultyJudge(ThreadingHTTPServer):
    """Answers well, has its faults one after the other, and answers well again."""

    daemon_threads = True
    request_queue_size = 128  # a connection beyond it would wait a second to be tried again

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.questions = 0
        self._counting = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Who asked has given up."""

    def fault(self) -> str | None:
        """What is wrong with the next answer."""
        with self._counting:
            number = (self.questions - WELL) // EACH
            self.questions += 1
        return FAULTS[number] if 0 <= number < len(FAULTS) else None


class _Handler(BaseHTTPRequestHandler):
    server: FaultyJudge

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.fault()
        if fault == "gone":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "slow":
            time.sleep(4 * SECONDS_PER_REQUEST)
        body = json.dumps({"score": 7 if fault == "wrong" else 1}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault != "dripping":
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.write(bytes([byte]))
            time.sleep(SECONDS_PER_REQUEST / 4)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(judge: FaultyJudge) -> Iterator[int]:
    """Within the block it answers; at this port."""
    with judge:
        thread = threading.Thread(target=judge.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield judge.server_port
        finally:
            judge.shutdown()
            thread.join()


def test_a_judge_that_is_slow_drips_is_wrong_and_gone_costs_responses_and_groups_and_not_the_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("r")

    async def job(port: int) -> None:
        settings = f"{{url: 'http://127.0.0.1:{port}', seconds_per_request: {SECONDS_PER_REQUEST}, attempts: 1, "
        settings += "failures_before_pause: 6, pause_seconds: 0.1, cached_verdicts: 1}"
        overrides = ("rewards.correctness=judge", f"rewards.judge={settings}")
        async with Stage3.started(folder, 1, 1, 1, overrides) as stage3:
            await stage3.run(SETTINGS)

    judge = FaultyJudge()
    with served(judge) as port:
        asyncio.run(job(port))

    checkpoints = CheckpointFolder(folder / "run-0" / "checkpoints", 1)
    checkpoint = checkpoints.read(checkpoints.newest_first()[0])
    ledger = checkpoint.state["ledger"]
    log = [json.loads(line) for line in (folder / "run-0" / "log.jsonl").read_text().splitlines()]
    assert judge.questions > WELL + EACH * len(FAULTS)
    assert [line["step"] for line in log][: STEPS + 1] == list(range(1, STEPS + 2))
    assert {reason for _, _, reason in ledger["dropped"]} == {"scoring_failed"}
    assert ledger["admitted"] - len(ledger["outstanding"]) - len(ledger["dropped"]) == checkpoint.step * GROUPS
    assert log[-1]["unscored/JudgeError"] >= EACH * len(FAULTS)
    assert log[-1]["unscored/JudgePausedError"] > 0
    assert log[-1]["unscored"] == 0.0
