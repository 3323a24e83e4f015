"""HTTP connections are bounded in number: idle ones make room, and nobody waits without an answer."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from tests.daemon.running import daemon


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def closed(connection: socket.socket) -> bool:
    """The other side has closed it, or does so soon."""
    connection.settimeout(5)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not holds():
        assert monotonic() < deadline


def ask(connection: http.client.HTTPConnection, path: str = "/healthz") -> tuple[int, str | None]:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("retry-after")


def test_the_longest_idle_makes_room(toy: Path, tmp_path: Path) -> None:
    """Whether it has asked before and is kept, or has said nothing yet, or is slow with its headers."""
    with daemon(tmp_path, toy, max_http_connections=3, handshake_seconds=60, keep_alive_seconds=60) as running:
        kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        silent, slow = connect(running.port), connect(running.port)
        slow.sendall(b"GET /healthz HTTP/1.1\r\nhost:")
        assert ask(kept) == (200, None)  # it came first, and was idle last
        more = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=20) for _ in range(2)]
        assert ask(more[0]) == (200, None)
        assert closed(silent)
        assert ask(kept) == (200, None)
        assert ask(more[1]) == (200, None)
        assert closed(slow)
        assert ask(kept) == (200, None)
        assert kept.sock is not None
        page = running.metrics()  # a connection of its own, for which another made room
        assert page["streamer_closed_http_connections_total"] >= 3
        assert page["streamer_http_connections"] == page['streamer_limit{name="max_http_connections"}'] == 3
        for connection in (kept, *more):
            connection.close()
        silent.close()
        slow.close()


@pytest.mark.long
def test_where_all_are_in_use_one_more_is_told_to_come_again(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, max_http_connections=2, body_seconds=60) as running:
        busy = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=60) for _ in range(2)]
        for number, connection in enumerate(busy):
            connection.putrequest("POST", f"/v1/streams/slow{number}?model=toy")
            connection.putheader("Content-Length", "4")
            connection.endheaders()
            connection.send(b"\0\0")

        def refused() -> bool:
            """Once the headers of both have arrived; before that they make room."""
            late = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
            answer = ask(late)
            late.close()
            return answer == (503, "1")

        try:
            wait_until(refused)
            with connect(running.port) as silent:  # one that asks nothing has its answer, too
                assert silent.recv(4096).startswith(b"HTTP/1.1 503 ")
                assert closed(silent)
            busy[0].send(b"\0\0")
            assert busy[0].getresponse().read()
            wait_until(lambda: not refused())  # which is kept, and idle
        finally:
            for connection in busy:
                connection.close()
        assert running.metrics()['streamer_refused_requests_total{reason="connections"}'] >= 2


def test_websockets_are_none_of_them(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, max_http_connections=1) as running, contextlib.ExitStack() as stack:
        for _ in range(3):
            one = stack.enter_context(connect(running.port))
            one.sendall(
                b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert one.recv(4096).startswith(b"HTTP/1.1 101 ")
        page = running.metrics()
        assert (page["streamer_http_connections"], page["streamer_connections"]) == (1, 3)
