"""What the fuzzer has found, each once, and its like."""

from __future__ import annotations

import struct

import pytest

from bench.attack.parsers import Parser, parsers

DEEP, LONG = b"[" * 100_000, b"9" * 5000


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parser]:
    return parsers(tmp_path_factory.mktemp("parsers"))


def snapshot(head: bytes, body: bytes = b"") -> bytes:
    return b"STS1\0\0\0\0STM1" + struct.pack("<I", len(head)) + head + body


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifests", DEEP),
        ("manifests", b'{"schema":' + LONG + b"}"),
        ("manifests", b'{"schema":1,"name":"\xff"}'),
        ("settings", b"models = " + DEEP),
        ("settings", b"port = " + LONG),
        ("settings", b"port = [" + b"{a=" * 5000),
        ("snapshots", snapshot(DEEP)),
        ("snapshots", snapshot(b'{"facts":{},"arrays":[["01,f4",[1]]]}')),
        ("snapshots", snapshot(b'{"facts":{},"arrays":[["(100000,100000)f8",[1]]]}')),
        ("snapshots", snapshot(b'{"facts":{},"arrays":[["<f4",[1e400]]]}')),
        ("snapshots", snapshot(b'{"facts":{},"arrays":[["<f4",[9223372036854775807,9223372036854775807]]]}')),
        ("snapshots", snapshot(b'{"facts":{},"arrays":[[[],[]]]}')),
        ("snapshots", snapshot(b'{"facts":{"events":[],"states":[],"markers":[]},"arrays":[]}')),
        ("tokens", DEEP),
        ("tokens", b'{"version":1,"tokens":[{"name":"a","owner":"\\u001f"}]}'),
        ("KServe", b'{"inputs":' + DEEP),
        ("OTLP", b'{"resourceMetrics":' + DEEP),
        ("control frames", b'{"type":' + DEEP[:4000]),
        ("rows", DEEP),
        ("MQTT payloads", DEEP),
    ],
)
def test_it_is_refused(known: dict[str, Parser], name: str, data: bytes) -> None:
    with pytest.raises(known[name].refusals):
        known[name].read(data)
