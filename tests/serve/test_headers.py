"""Headers of a request by their names."""

from __future__ import annotations

from streamer.serve.headers import headers_of


def test_they_are_read_once_and_said_twice_they_are_both() -> None:
    said = [(b"host", b"localhost"), (b"content-type", b"text/csv"), (b"x", b"1"), (b"content-type", b"text/plain")]
    scope = {"headers": said}
    assert headers_of(scope) == {"host": "localhost", "content-type": "text/csv, text/plain", "x": "1"}
    said.clear()
    assert headers_of(scope)["x"] == "1"
