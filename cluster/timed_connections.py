"""Connections whose time limit is one of the whole answer, from the request's beginning to the last byte of its body.

The time limits of http.client and urllib3 are of each piece that arrives: an answer that drips keeps all of them.
"""

from __future__ import annotations

import http.client
import time
from io import BufferedReader, RawIOBase
from socket import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


def timed_connections(**settings: Any) -> PoolManager:
    """A pool manager with these settings: a request's `Timeout(total=...)` holds for headers and body together."""
    manager = PoolManager(**settings)
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return manager


class _Pieces(RawIOBase):
    """What arrives at a socket, until a time."""

    def __init__(self, pieces: Any, arriving_at: socket, seconds: float | None) -> None:
        self._pieces = pieces
        self._socket = arriving_at
        self._until = None if seconds is None else time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left)
        found: int | None = self._pieces.readinto(buffer)
        return found

    def close(self) -> None:
        self._pieces.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Has the time that its socket has left when the request is sent: urllib3 takes what that took off the total."""

    def __init__(self, sock: socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp: BufferedReader = BufferedReader(_Pieces(self.fp.detach(), sock, sock.gettimeout()))


class _HttpConnection(HTTPConnection):
    response_class = _Response


class _HttpsConnection(HTTPSConnection):
    response_class = _Response


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
