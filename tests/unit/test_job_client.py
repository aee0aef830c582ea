"""Ray's client with a cluster that is not there, that refuses, and whose jobs end or are left."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus
from ray.util.state.exception import RayStateApiException

from cluster import job_client
from cluster.job_client import JobClient, Unreachable, _remedies
from cluster.stopped import Stopped


@pytest.mark.parametrize(
    "error, told",
    [
        (ConnectionError("nobody answers."), r"^nobody answers\. Start a cluster .* or name one: --address"),
        (AuthenticationError("wrong token\n\nmore"), r"wants its token \(wrong token\): set RAY_AUTH_MODE=token"),
        (RuntimeError("Request failed with status code 500: x"), "^the cluster answered: Request failed .* 500: x"),
    ],
)
def test_what_the_cluster_refuses_is_told_with_the_remedy(error: Exception, told: str) -> None:
    with pytest.raises(Unreachable, match=told), _remedies():
        raise error


def test_a_file_that_cannot_be_sent_is_not_taken_for_a_missing_cluster() -> None:
    with pytest.raises(PermissionError), _remedies():
        raise PermissionError("secret.txt")


def test_an_address_that_nobody_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://another.invalid:1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}.*ray start --head"):
        JobClient.connected(f"http://127.0.0.1:{port}")


def test_a_cluster_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setattr(job_client, "SECONDS_PER_REQUEST", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        with pytest.raises(Unreachable, match="timed out"):
            JobClient.connected(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_cluster_that_does_not_tell_of_its_nodes_is_not_taken_for_one_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RayStateApiException("no data source")

    monkeypatch.setattr(job_client, "list_nodes", refuse)
    client = JobClient.__new__(JobClient)
    client._address = "http://127.0.0.1:1"

    with pytest.raises(Unreachable, match="does not say what nodes it has: no data source"):
        client.nodes()


def test_a_folder_that_is_too_large_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Request failed with status code 413: Maximum request body size 104857600 exceeded.")

    monkeypatch.setattr(JobClient, "submit_job", refuse)

    with pytest.raises(Unreachable, match=r"^/work is too large to be sent to the cluster: name in \.rayignore"):
        JobClient.__new__(JobClient).submit(runtime_env={"working_dir": "/work"})


class Client(JobClient):
    """A client of a job that says two lines and ends; the status comes a moment later."""

    def __init__(self, interrupted: bool = False, lost: bool = False) -> None:
        self._interrupted, self._lost = interrupted, lost
        self._statuses = [JobStatus.RUNNING, JobStatus.SUCCEEDED]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "one\n"
        if self._interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        if self._lost:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "two\n"

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=self._statuses.pop(0))


def test_a_jobs_log_is_shown_until_it_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    job = Client().follow("emoji-1")

    assert job.status == JobStatus.SUCCEEDED
    assert capsys.readouterr().out == "one\ntwo\n"


def test_ctrl_c_leaves_the_job_and_says_what_can_be_done_with_it() -> None:
    with pytest.raises(Stopped, match=r"emoji-1 goes on\n.* --follow emoji-1\n.* stop emoji-1"):
        Client(interrupted=True).follow("emoji-1")


def test_a_log_that_breaks_off_is_not_the_end_of_the_job() -> None:
    with pytest.raises(Unreachable, match=r"closed unexpectedly\nemoji-1 may go on\n.* --follow emoji-1"):
        Client(lost=True).follow("emoji-1")
