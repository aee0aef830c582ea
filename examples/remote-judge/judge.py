"""A judge on this machine: `python judge.py [PORT]` answers what `rewards.judge` asks.

    POST {"answer": "drizzle", "reference": "rain"}   ->   200 {"score": 0.4}

It stands for whatever may say whether an answer is right: a larger model, a search, a person's queue.
"""

from __future__ import annotations

import json
import os
import sys
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BYTES_AT_MOST = 65536  # of a question
WORTH = {  # of an answer beside what came: an umbrella in vain costs less than none in the rain
    ("rain", "drizzle"): 0.8,
    ("drizzle", "rain"): 0.4,
    ("drizzle", "dry"): 0.6,
    ("rain", "dry"): 0.2,
}


class Judge(BaseHTTPRequestHandler):
    """Answers one question a request."""

    protocol_version = "HTTP/1.1"  # connections are kept

    def do_POST(self) -> None:
        """Judge an answer, for who knows the token."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BYTES_AT_MOST:
            self.close_connection = True  # what is not read would pass for the next request
            self._answer(413, {"error": f"expected at most {BYTES_AT_MOST} bytes, and their number"})
            return
        body = self.rfile.read(int(length))
        wanted = f"Bearer {os.environ['JUDGE_TOKEN']}"
        if not compare_digest(self.headers.get("Authorization", "").encode(), wanted.encode()):
            self._answer(401, {"error": "the token is another one"})
            return
        try:
            question = json.loads(body)
            answer, reference = str(question["answer"]), str(question["reference"])
        except (ValueError, RecursionError, KeyError, TypeError):
            self._answer(400, {"error": "expected answer and reference in JSON"})
            return
        self._answer(200, {"score": 1.0 if answer == reference else WORTH.get((answer, reference), 0.0)})

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: there are many."""

    def _answer(self, status: int, message: dict[str, object]) -> None:
        body = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Judge until Ctrl-C, for this machine alone."""
    if not os.environ.get("JUDGE_TOKEN"):
        sys.exit("judge.py: set JUDGE_TOKEN to a secret of your own, here and where Caliber runs")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8399
    with ThreadingHTTPServer(("127.0.0.1", port), Judge) as server:
        print(f"judging at http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("no more questions")


if __name__ == "__main__":
    main()
