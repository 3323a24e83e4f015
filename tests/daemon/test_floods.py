"""What one connection may bring at a time, and what it is answered."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator

import pytest

from bench.attack.clients import BINARY, PING, PONG, TEXT, UPGRADE, frame
from tests.daemon.running import Running

START = frame(TEXT, b'{"type":"start","sample_rate":8000}')


@contextlib.contextmanager
def connected(served: Running, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), 30) as wire:
        if data:
            wire.sendall(data)
        yield wire


class Reader:
    """Frames that the daemon sends."""

    def __init__(self, wire: socket.socket) -> None:
        self._file = wire.makefile("rb")

    def head(self) -> bytes:
        lines = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def body(self, head: bytes) -> bytes:
        said = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        return self._file.read(int(said.split(b":")[1]))

    def frame(self) -> tuple[int, bytes]:
        first, length = self._file.read(2)
        if length > 125:
            length = int.from_bytes(self._file.read(2 if length == 126 else 8))
        return first & 15, self._file.read(length)

    def until(self, kind: str) -> dict[str, object]:
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT and (event := json.loads(payload))["type"] == kind:
                return dict(event)


def test_frames_behind_the_handshake_are_not_lost(served: Running) -> None:
    end = frame(TEXT, b'{"type":"end"}')
    with connected(served, UPGRADE % b"/v1/stream" + START + frame(BINARY, bytes(2000)) + end) as wire:
        reader = Reader(wire)
        assert b"101" in reader.head()
        assert reader.until("end")["position"] == 1000


def test_tiny_frames_are_all_taken_in_their_order(served: Running) -> None:
    with connected(served, UPGRADE % b"/v1/stream" + START) as wire:
        reader = Reader(wire)
        reader.head()
        reader.until("ready")
        for _ in range(20):
            wire.sendall(frame(BINARY, bytes(2)) * 999)
            wire.sendall(frame(TEXT, b'{"type":"marker","id":"m"}'))
        wire.sendall(frame(TEXT, b'{"type":"end"}'))
        positions = [reader.until("marker")["position"] for _ in range(20)]
        assert positions == [999 * (i + 1) for i in range(20)]
        assert reader.until("end")["position"] == 999 * 20


def test_of_pings_that_come_together_the_last_is_answered(served: Running) -> None:
    with connected(served, UPGRADE % b"/v1/stream" + START) as wire:
        reader = Reader(wire)
        reader.head()
        reader.until("ready")
        wire.sendall(b"".join(frame(PING, b"%d" % i) for i in range(5000)))
        pongs: list[bytes] = []
        while not pongs or pongs[-1] != b"4999":
            opcode, payload = reader.frame()
            if opcode == TEXT:  # an acknowledgement came between
                continue
            assert opcode == PONG
            pongs.append(payload)
        assert len(pongs) < 5000
        assert pongs == sorted(pongs, key=int)


def test_large_frames_at_another_rate_are_all_taken(served: Running) -> None:
    """In a thread, in pieces, as the buffer has room."""
    data = bytes(2**20)
    with connected(served, UPGRADE % b"/v1/stream" + frame(TEXT, b'{"type":"start","sample_rate":48000}')) as wire:
        reader = Reader(wire)
        reader.head()
        reader.until("ready")
        wire.sendall(frame(BINARY, data) + frame(BINARY, data) + frame(TEXT, b'{"type":"end"}'))
        assert reader.until("end")["position"] == 2**20


def test_half_a_sample_in_a_large_frame_is_refused_whole(served: Running) -> None:
    with connected(served, UPGRADE % b"/v1/stream" + frame(TEXT, b'{"type":"start","sample_rate":48000}')) as wire:
        reader = Reader(wire)
        reader.head()
        reader.until("ready")
        wire.sendall(frame(BINARY, bytes(2**19 + 1)))
        assert reader.until("error")["code"] == "bad_audio"


def test_requests_sent_ahead_are_answered_one_after_the_other(served: Running) -> None:
    pages = [b"/healthz", b"/metrics", b"/nothing", b"/v1/models"] * 25
    request = b"".join(
        b"GET %b HTTP/1.1\r\nHost: localhost\r\nX-Long: %b\r\n\r\n" % (page, b"x" * 300) for page in pages
    )
    with connected(served, request) as wire:
        reader = Reader(wire)
        for page in pages:
            head = reader.head()
            assert head.split(b" ")[1] == (b"404" if page == b"/nothing" else b"200")
            body = reader.body(head)
            assert (page == b"/healthz") is (body == b"ok\n")


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_requests_in_pieces_with_bodies_are_answered(served: Running, size: int) -> None:
    """Of one with its length said, one in chunks, one without a body, and one behind an answer that came early."""
    body = b"[" + b"0," * 1000 + b"0]"
    post = b"POST /v1/streams/pieces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:500], body[500:])) + b"0\r\n\r\n"
    lost = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)
    data = post + b"Content-Length: %d\r\n\r\n" % len(body) + body
    data += post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    data += lost + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    data += b"DELETE /v1/streams/pieces HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(served) as wire:
        reader = Reader(wire)
        for at in range(0, len(data), size):
            wire.sendall(data[at : at + size])
        answers = []
        for _ in range(4):
            head = reader.head()
            answers.append((head.split(b" ")[1], reader.body(head)))
        assert [status for status, _ in answers] == [b"200", b"200", b"404", b"200"]
        assert [json.loads(answers[i][1])["position"] for i in range(2)] == [1001, 2002]
        assert reader.head().split(b" ")[1] == b"204"


@pytest.mark.parametrize("packed", [False, True])
def test_json_that_is_too_long_is_refused_and_as_bytes_it_may_be_longer(served: Running, packed: bool) -> None:
    body = b"[" + b"0," * 2**21 + b"0]"
    headers = b""
    if packed:
        body, headers = gzip.compress(body), b"Content-Encoding: gzip\r\n"
    head = b"POST /v1/streams/long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%bContent-Length: %d\r\n\r\n"
    with connected(served, head % (headers, len(body)) + body) as wire:
        reader = Reader(wire)
        answer = reader.head()
        assert answer.split(b" ")[1] == b"413"
        assert b"max_json_bytes" in reader.body(answer)
