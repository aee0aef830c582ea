"""The judge's client against a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3.util.retry

from cluster.remote_judge import JudgeError, JudgePausedError, RemoteJudge
from configs.schema import Judge

RIGHT = (200, b'{"score": 1}')


@dataclass
class Server:
    """Answers with what is planned, one after the other, and then with 0.5."""

    url: str = ""
    planned: list[tuple[int, bytes] | tuple[int, bytes, dict[str, str]]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # released by each request
    silence: threading.Event | None = None  # answers wait for it
    seconds_per_byte: float = 0.0  # of an answer
    dripping_headers: bool = False  # and not the body alone
    body_began: float = 0.0  # of the last answer, by the monotonic clock
    lock: threading.Lock = field(default_factory=threading.Lock)
    hung_up: threading.Event = field(default_factory=threading.Event)  # a client did, before the answer's end

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self.lock:
            self.requests.append(
                {
                    "method": handler.command,
                    "headers": dict(handler.headers),
                    "body": body,
                    "client": handler.client_address,
                }
            )
            status, text, *headers = self.planned.pop(0) if self.planned else (200, b'{"score": 0.5}')
        self.asked.release()
        if self.silence is not None:
            self.silence.wait()
        if self.dripping_headers:
            self.drip(
                handler, b"HTTP/1.1 %d\r\nContent-Length: %d\r\nX-Long: %b\r\n\r\n" % (status, len(text), b"x" * 500)
            )
        else:
            handler.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
        self.body_began = time.monotonic()
        if self.seconds_per_byte:
            self.drip(handler, text)
        else:
            handler.wfile.write(text)

    def drip(self, handler: BaseHTTPRequestHandler, text: bytes) -> None:
        for byte in text:
            handler.wfile.write(bytes([byte]))
            threading.Event().wait(self.seconds_per_byte)  # pauses stand for `time.sleep`, the whole process's


@pytest.fixture
def server() -> Iterator[Server]:
    plan = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            plan.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Http(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            plan.hung_up.set()

    with Http(("127.0.0.1", 0), Handler) as http:
        plan.url = f"http://127.0.0.1:{http.server_port}/judge"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield plan
        if plan.silence is not None:
            plan.silence.set()
        http.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is waited for between attempts, which here takes no time."""
    found: list[float] = []
    monkeypatch.setattr(urllib3.util.retry.time, "sleep", found.append)
    return found


Ask = Callable[..., RemoteJudge]


@pytest.fixture
def judge(server: Server, pauses: list[float]) -> Iterator[Ask]:
    made: list[RemoteJudge] = []

    def judge(**settings: Any) -> RemoteJudge:
        made.append(RemoteJudge(Judge(url=server.url, **settings)))
        return made[-1]

    yield judge
    for one in made:
        one.close()


def test_question_and_score_travel_as_json(server: Server, judge: Ask) -> None:
    assert judge()("jöy \U0001f600", 'a "b"') == 0.5

    (request,) = server.requests
    assert request["method"] == "POST"
    assert json.loads(request["body"]) == {"answer": "jöy \U0001f600", "reference": 'a "b"'}
    assert request["headers"]["Content-Type"] == "application/json"
    assert "Authorization" not in request["headers"]


def test_the_token_comes_from_the_environment(server: Server, judge: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "secret")

    judge(token_variable="JUDGE_TOKEN")("a", "b")

    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret"


def test_a_token_that_is_not_there_is_refused_before_anything_is_asked(judge: Ask) -> None:
    with pytest.raises(ValueError, match=r"rewards.judge.token_variable: the environment has no NO_SUCH_TOKEN"):
        judge(token_variable="NO_SUCH_TOKEN")


@pytest.mark.parametrize("status", [408, 429, 500, 503, 599])
def test_a_judge_in_trouble_is_asked_again_after_pauses_that_double(
    server: Server, judge: Ask, pauses: list[float], status: int
) -> None:
    server.planned = [(status, b"")] * 3 + [RIGHT]

    assert judge(attempts=4, seconds_of_backoff=1.0)("a", "b") == 1.0

    assert [0.5 <= pauses[0] <= 1.0, 1.0 <= pauses[1] <= 2.0, 2.0 <= pauses[2] <= 4.0] == [True] * 3
    assert len(server.requests) == 4


def test_a_pause_is_as_long_as_the_judge_asks_for_within_reason(
    server: Server, judge: Ask, pauses: list[float]
) -> None:
    server.planned = [(429, b"", {"Retry-After": "7"}), (503, b"", {"Retry-After": "3600"}), RIGHT]

    assert judge(seconds_of_backoff=0.1)("a", "b") == 1.0

    assert pauses == [7, 10]


def test_attempts_come_to_an_end(server: Server, judge: Ask) -> None:
    server.planned = [(503, b"")] * 3

    with pytest.raises(JudgeError, match=r"gave no verdict after 3 attempts: it answered 503$"):
        judge(attempts=3)("a", "b")

    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 422])
def test_a_question_that_the_judge_refuses_is_not_asked_again(server: Server, judge: Ask, status: int) -> None:
    server.planned = [(status, b"no such thing", {"Retry-After": "1", "Location": server.url})]

    with pytest.raises(JudgeError, match=f"answered {status} b'no such thing', expected 200"):
        judge()("a", "b")

    assert len(server.requests) == 1


def test_a_redirect_is_no_verdict_and_is_not_followed_to_another_host(
    server: Server, judge: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    port = server.url.split(":")[2].split("/")[0]
    server.planned = [(307, b"", {"Location": f"http://localhost:{port}/elsewhere"})]  # the same server, another host

    with pytest.raises(JudgeError, match="answered 307"):
        judge(token_variable="JUDGE_TOKEN")("a", "b")

    assert [request["headers"]["Host"] for request in server.requests] == [f"127.0.0.1:{port}"]


def test_a_judge_that_repeats_the_token_does_not_bring_it_into_the_log(
    server: Server, judge: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "secret")
    server.planned = [(401, b"x" * 188 + b" Bearer secret is not known")]

    with pytest.raises(JudgeError, match="answered 401") as caught:
        judge(token_variable="JUDGE_TOKEN")("a", "b")

    assert "sec" not in str(caught.value)


def test_of_an_answer_without_end_no_more_is_read_than_a_score_takes(server: Server, judge: Ask) -> None:
    server.planned = [(200, b'{"score": 1}' + b" " * 50_000_000)]

    with pytest.raises(JudgeError, match="answered 200"):
        judge()("a", "b")
    assert server.hung_up.wait(30)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"1", b"yes", b"[]", b"{}", b'{"score": null}', b'{"score": "1"}', b'{"score": true}', b"\xff"),
        *(b'{"score": 1.01}', b'{"score": -1}', b'{"score": NaN}', b'{"score": 1, "answer": 2}', b"[" * 100_000),
    ],
)
def test_an_answer_that_is_no_score_costs_one_response(server: Server, judge: Ask, body: bytes) -> None:
    server.planned = [(200, body)]
    asked = judge()

    with pytest.raises(JudgeError, match="answered 200"):
        asked("a", "b")
    assert asked("a", "b") == 0.5


def test_a_judge_that_does_not_answer_in_time_is_given_up(server: Server, judge: Ask) -> None:
    server.silence = threading.Event()

    with pytest.raises(JudgeError, match="timed out"):
        judge(seconds_per_request=0.2, attempts=2)("a", "b")

    assert all(server.asked.acquire(timeout=60) for _ in range(2))  # it may see them after they were given up
    assert len(server.requests) == 2


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_judge_whose_answer_drips_is_given_up_in_its_time(server: Server, judge: Ask, attempts: int) -> None:
    server.seconds_per_byte, server.planned = 0.05, [(200, b'{"score": 1}' + b" " * 500)]
    began = time.monotonic()

    with pytest.raises(JudgeError, match="gave no verdict: its answer is not whole after its time"):
        judge(seconds_per_request=3.0, attempts=attempts)("a", "b")

    assert time.monotonic() - began < 20.0  # the whole of it would take 25 s
    assert server.hung_up.wait(30)


def test_what_a_judge_in_trouble_says_at_length_is_not_waited_for(server: Server, judge: Ask) -> None:
    server.seconds_per_byte, server.planned = 0.05, [(503, b"x" * 500), RIGHT]
    began = time.monotonic()

    assert judge(seconds_per_request=30.0)("a", "b") == 1.0

    assert time.monotonic() - began < 10.0  # the whole of it would take 25 s
    assert server.hung_up.wait(30)


def test_a_judge_whose_headers_drip_is_given_up_in_its_time(server: Server, judge: Ask) -> None:
    server.seconds_per_byte, server.dripping_headers = 0.05, True
    began = time.monotonic()

    with pytest.raises(JudgeError, match=r"gave no verdict after 2 attempts: .*timed out"):
        judge(seconds_per_request=0.5, attempts=2)("a", "b")

    assert time.monotonic() - began < 20.0  # the whole of them would take 25 s each time
    assert all(server.asked.acquire(timeout=60) for _ in range(2))
    assert len(server.requests) == 2


def test_headers_and_body_that_drip_have_one_time_together(server: Server, judge: Ask) -> None:
    server.seconds_per_byte, server.dripping_headers = 0.005, True  # more than two seconds until the body
    server.planned = [(200, b'{"score": 1}' + b" " * 4000)]
    began = time.monotonic()

    with pytest.raises(JudgeError, match="its answer is not whole after its time"):
        judge(seconds_per_request=8.0)("a", "b")

    assert time.monotonic() - began < 8.0 + (server.body_began - began) / 2


def test_a_connection_is_used_again_with_the_whole_of_its_time(server: Server, judge: Ask) -> None:
    asked = judge(seconds_per_request=4.0)
    server.seconds_per_byte, server.planned = 0.2, [RIGHT] * 3  # each takes more than half of it

    assert [asked(answer, "b") for answer in "abc"] == [1.0] * 3

    assert len({request["client"] for request in server.requests}) == 1


def test_a_pause_that_cannot_be_read_is_none_that_was_asked_for(
    server: Server, judge: Ask, pauses: list[float]
) -> None:
    server.planned = [(503, b"", {"Retry-After": "soon"}), RIGHT]

    assert judge(seconds_of_backoff=1.0)("a", "b") == 1.0

    assert 0.5 <= pauses[0] <= 1.0


def test_attempts_end_when_no_time_is_left_for_another(
    server: Server, judge: Ask, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "seconds_at_most", 5.0)
    server.planned = [(503, b"", {"Retry-After": "3"}), (503, b"", {"Retry-After": "7"}), RIGHT]

    with pytest.raises(JudgeError, match="gave no verdict after 2 attempts: it answered 503"):
        judge(attempts=3)("a", "b")

    assert pauses == [3]


def test_an_answer_that_drips_and_is_whole_in_time_is_a_verdict(server: Server, judge: Ask) -> None:
    server.seconds_per_byte, server.planned = 0.01, [RIGHT]

    assert judge(seconds_per_request=60.0)("a", "b") == 1.0


def test_a_judge_that_is_not_there_is_given_up(pauses: list[float]) -> None:
    with (
        closing(RemoteJudge(Judge(url="http://127.0.0.1:1/judge"))) as judge,
        pytest.raises(JudgeError, match="Connection refused"),
    ):
        judge("a", "b")

    assert len(pauses) == 2


def test_a_judge_that_fails_too_often_is_not_asked_until_a_trial_succeeds(
    server: Server, judge: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.planned = [(500, b"")] * 3
    asked = judge(attempts=1, failures_before_pause=2, pause_seconds=1000.0)
    now = [0.0]
    monkeypatch.setattr(asked._breaker, "_clock", lambda: now[0])

    for answer in ("a", "b"):
        with pytest.raises(JudgeError, match="500"):
            asked(answer, "")
    with pytest.raises(JudgePausedError, match="is not asked for a while"):
        asked("c", "")
    assert len(server.requests) == 2

    now[0] = 1000.0
    with pytest.raises(JudgeError, match="500"):
        asked("d", "")
    with pytest.raises(JudgePausedError):
        asked("d", "")

    now[0] = 2000.0
    assert [asked(answer, "") for answer in "abcd"] == [0.5] * 4


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_judge_that_refuses_questions_is_well(server: Server, judge: Ask, status: int) -> None:
    server.planned = [(status, b"too long")] * 3 + [(500, b"")] + [(status, b"too long")] + [(500, b""), RIGHT]
    asked = judge(attempts=1, failures_before_pause=2)

    for answer in "abcdef":
        with pytest.raises(JudgeError, match="answered"):
            asked(answer, "")

    assert asked("g", "") == 1.0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_judge_that_takes_no_question_at_all_is_paused(server: Server, judge: Ask, status: int) -> None:
    server.planned = [(status, b"")] * 2
    asked = judge(failures_before_pause=2)

    for answer in "ab":
        with pytest.raises(JudgeError, match="answered"):
            asked(answer, "")

    with pytest.raises(JudgePausedError):
        asked("c", "")


def test_a_verdict_is_remembered_also_while_the_judge_is_paused(server: Server, judge: Ask) -> None:
    server.planned = [RIGHT, (500, b"")]
    asked = judge(attempts=1, failures_before_pause=1)

    assert asked("a", "b") == 1.0
    with pytest.raises(JudgeError):
        asked("c", "d")

    assert asked("a", "b") == 1.0
    assert len(server.requests) == 2
