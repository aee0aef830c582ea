"""The report that follows a run, over HTTP on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import urllib3

from cluster.cli import main
from cluster.report import live
from cluster.report.live import LivePage, LiveServer
from tests.unit.report_run import made_run
from tests.unit.served_report import SECONDS, served


def get(server: LiveServer, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", server.address + path, headers=headers, timeout=SECONDS, retries=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path, groups=4)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has pages made as often as there is something new."""
    monkeypatch.setattr(live, "_SHARE", 1.0)


def test_the_page_is_served_on_loopback_and_may_ask_its_own_server(run: Path) -> None:
    with served(LivePage([run], 100)) as server:
        found = get(server, "")

    assert server.server_address[0] == "127.0.0.1"
    assert (found.status, found.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"connect-src 'self'" in found.data
    assert b"data-live" in found.data


def test_a_new_line_of_the_log_makes_another_version_and_another_page(run: Path, at_once: None) -> None:
    with served(LivePage([run], 100)) as server:
        before, first = get(server, "version").data, get(server, "").data
        log = run / "stage3" / "log.jsonl"
        with log.open("a") as file:
            file.write(log.read_text().splitlines()[-1].replace('"step": 10', '"step": 11') + "\n")
        after, second = get(server, "version").data, get(server, "").data

    assert before != after
    assert (b"step 10 of" in first, b"step 11 of" in second) == (True, True)


def test_the_same_files_are_the_same_version_and_are_read_once(
    run: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = LivePage([run], 100)
    text, version = report.text(), report.version()
    monkeypatch.setattr(live, "read_run", None)

    assert (report.text(), report.version()) == (text, version)


def test_soon_after_a_page_was_made_nothing_new_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SHARE", 1e-9)  # soon: for longer than any machine stalls
    report = LivePage([run], 100)
    report.text()
    before = report.version()

    (run / "stage3" / "log.jsonl").unlink()

    assert report.version() == before


def test_who_forwards_another_port_is_told_to_forward_the_same_one(run: Path) -> None:
    with served(LivePage([run], 100)) as server:
        refused = get(server, "", Host="localhost:9000")
        port = server.server_port

    assert refused.status == 403
    assert f"forward the same port: ssh -L {port}:localhost:{port} HOST" in refused.data.decode()


def test_another_host_and_another_path_are_refused(run: Path) -> None:
    with served(LivePage([run], 100)) as server:
        host, path = get(server, "version", Host="evil.example"), get(server, "../recipe.yaml")

    assert (host.status, path.status) == (403, 404)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_named_with_the_remedy(run: Path, port: int) -> None:
    with pytest.raises(ValueError, match=rf"--port {port}, but .*0-65535.*; --port 0 takes a free one"):
        LiveServer(LivePage([run], 100), port)


def test_a_port_that_is_taken_is_told_before_the_page_is_made(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LivePage, "text", None)

    with served(LivePage([run], 100)) as server:
        code = main(["report", "--live", "--port", str(server.server_port), str(run)])

    told = f"caliber report: got --port {server.server_port}, but [Errno 98] Address already in use; --port 0 takes a"
    assert (code, told in capsys.readouterr().err) == (2, True)


def test_a_run_that_cannot_be_read_is_said_so_and_comes_back(run: Path, at_once: None) -> None:
    recipe = run / "recipe.yaml"
    with served(LivePage([run], 100)) as server:
        recipe.rename(run / "aside")
        gone = get(server, "")
        (run / "aside").rename(recipe)
        back = get(server, "")

    assert (gone.status, back.status) == (503, 200)
