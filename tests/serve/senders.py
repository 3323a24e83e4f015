"""Bodies as real senders make them; the messages are written out by hand, so that no code is shared with the reader."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import cramjam

from streamer.serve.readings.parsed import BodyError, Parsed


def refused(parse: Callable[[], Parsed]) -> int:
    """The HTTP status of the refusal; 0: it was read. Any other exception passes."""
    try:
        assert isinstance(parse(), Parsed)
    except BodyError as error:
        return error.status
    return 0


Series = tuple[dict[str, str], Sequence[tuple[float, int]]]


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def sample(value: float, milliseconds: int) -> bytes:
    return double(1, value) + integer(2, milliseconds)


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def request_v1(*series: Series, extra: bytes = b"") -> bytes:
    body = []
    for labels, samples in series:
        inside = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in labels.items())
        inside += b"".join(field(2, sample(*one)) for one in samples) + extra
        body.append(field(1, inside))
    return b"".join(body)


def request_v2(*series: Series, extra: bytes = b"") -> bytes:
    symbols = [""]
    body = b""
    for labels, samples in series:
        refs = []
        for text in (text for pair in labels.items() for text in pair):
            if text not in symbols:
                symbols.append(text)
            refs.append(symbols.index(text))
        inside = field(1, b"".join(map(varint, refs))) + b"".join(field(2, sample(*one)) for one in samples) + extra
        body += field(5, inside)
    return b"".join(field(4, symbol.encode()) for symbol in symbols) + body


def otlp(metrics: bytes, resource: bytes = b"") -> bytes:
    """``metrics``: fields 2 of a scope."""
    return field(1, field(1, resource) + field(2, field(1, b"") + metrics))


def attribute(key: str, value: str, number: int) -> bytes:
    return field(number, field(1, key.encode()) + field(2, field(1, value.encode())))
