"""Prometheus remote write, 1.0 and 2.0: snappy around protobuf, thousands of samples a request.

Labels are declared as bytes (the wire format is the same), so that a known series costs one dictionary lookup instead
of parsing its labels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streamer.names import SERIES_CHARACTERS
from streamer.serve.bounds import TooMuchError, charge
from streamer.serve.readings.parsed import TOGETHER, BodyError, Collected, Names, Parsed, named
from streamer.sources.times import in_calendar

try:
    import cramjam
    from google.protobuf.message import DecodeError

    from streamer.serve.proto import messages
except ImportError as error:
    raise BodyError(501, f"{error.name} is missing: pip install 'streamer[sensors]'") from error

__all__ = ["negotiate"]

#: A NaN with these bits marks the end of a series; it is not a reading.
STALE_BITS = 0x7FF0000000000002
STALE = struct.pack(">Q", STALE_BITS)
#: Most bytes of a series' labels; more can't be a stream's name anyway.
LABEL_BYTES = 4 * SERIES_CHARACTERS
TYPES = {
    "prometheus.WriteRequest": "v1",
    "io.prometheus.write.v2.Request": "v2",
}
#: The end of a series with one sample, as most have: a value that is not 0, a time from 2004 to 2109.
SAMPLE = np.dtype([("head", "S3"), ("value", "<f8"), ("tag", "u1"), ("time", "u1", 6)])
HEAD, TAG = b"\x12\x10\x09", 0x10
Pairs = Callable[[tuple[bytes, ...]], list[tuple[bytes, bytes]]]

_proto = messages(
    "streamer_remote_write.proto",
    {
        "Sample": {"value": (1, "double"), "timestamp": (2, "int64")},
        "Label": {"name": (1, "bytes"), "value": (2, "bytes")},
        "Series": {"labels": (1, "bytes*"), "samples": (2, "Sample*"), "histograms": (4, "bytes*")},
        "Request": {"timeseries": (1, "bytes*")},
        "Series2": {"labels_refs": (1, "uint32*"), "samples": (2, "Sample*"), "histograms": (3, "bytes*")},
        "Request2": {"symbols": (4, "bytes*"), "timeseries": (5, "Series2*")},
    },
)
#: Names by a series' labels; in 1.0 by the bytes before the sample of a series, which hold only the labels.
_names: Names[tuple[bytes, ...]] = Names()
_heads: Names[tuple[bytes]] = Names()


def negotiate(headers: Mapping[str, str]) -> Callable[[bytes, int], Parsed]:
    """The parser for a content type; it takes the body and the largest unpacked size. Raises :class:`BodyError` 415."""
    kind, *parameters = headers.get("content-type", "application/x-protobuf").split(";")
    if kind.strip().lower() != "application/x-protobuf":
        raise BodyError(415, f"Content-Type {kind[:60]!r}: application/x-protobuf")
    encoding = headers.get("content-encoding", "snappy").strip().lower()
    if encoding != "snappy":
        raise BodyError(415, f"Content-Encoding {encoding[:40]!r}: snappy")
    given = dict(part.strip().partition("=")[::2] for part in parameters)
    message = given.get("proto", "prometheus.WriteRequest").strip('"')
    if message not in TYPES:
        raise BodyError(415, f"proto={message[:80]}: {' or '.join(TYPES)}")
    return _parse_v1 if TYPES[message] == "v1" else _parse_v2


def unpack(body: bytes, limit: int) -> bytes:
    """Unpack Snappy's block format, which begins with the unpacked length: a bomb is refused without unpacking."""
    length, shift = 0, 0
    for byte in body[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise BodyError(400, "the body is not snappy's block format")
    if length > limit:
        raise BodyError(413, f"the body unpacks to {length} bytes, the limit is {limit} (max_unpacked_bytes)")
    # a copy of 64 bytes takes 3: a larger announced ratio is not snappy, and no memory is allocated for it
    if length > 32 * len(body):
        raise BodyError(400, "the body is too short for the unpacked length that it announces")
    try:
        charge(length)
        return bytes(cramjam.snappy.decompress_raw(body))
    except TooMuchError as error:
        raise BodyError(503, str(error)) from None
    except (cramjam.DecompressionError, ValueError, OverflowError, MemoryError) as error:
        raise BodyError(400, f"the body is not snappy: {str(error)[:100]}") from None


def _parse_v1(body: bytes, limit: int) -> Parsed:
    request = _decode("Request", unpack(body, limit))
    found = Collected()
    names: list[str] = []
    known: list[bytes] = []  # series of these names with one sample each
    for series in request.timeseries:
        if (name := _heads[(series[: -SAMPLE.itemsize],)]) is not None:
            names.append(name)
            known.append(series)
            if len(names) < TOGETHER:  # each name is a copy, which is charged with its reading
                continue
            _add_known(names, known, found)
            names, known = [], []
            continue
        _add_known(names, known, found)
        names, known = [], []
        _series_v1(series, found)
    _add_known(names, known, found)
    return found.done()


def _add_known(names: list[str], series: list[bytes], found: Collected) -> None:
    """Add series of known names with one sample each. If one has anything else behind its labels, all are parsed in
    full."""
    ends = np.frombuffer(b"".join([each[-SAMPLE.itemsize :] for each in series]), SAMPLE)
    sevens, last = ends["time"] & 0x7F, ends["time"] >> 7
    times = (sevens.astype(np.int64) << (7 * np.arange(6))).sum(1) / 1000
    whole = (ends["head"] == HEAD) & (ends["tag"] == TAG) & (last == (1, 1, 1, 1, 1, 0)).all(1)
    if whole.all() and not (ends["value"].view("<u8") == STALE_BITS).any():
        found.extend(names, times.tolist(), ends["value"].tolist())
        return
    for each in series:
        _series_v1(each, found)


def _series_v1(data: bytes, found: Collected) -> None:
    series = _decode("Series", data)
    labels = tuple(series.labels)
    name = _names[labels] or _new(labels, _pairs_v1, series, found)
    if name is None:
        return
    _samples(name, series, found)
    head = b"".join(b"\x0a" + _varint(len(label)) + label for label in labels)
    if len(series.samples) == 1 and data[: -SAMPLE.itemsize] == head:
        _heads.keep((head,), name)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _parse_v2(body: bytes, limit: int) -> Parsed:
    request = _decode("Request2", unpack(body, limit))
    symbols: list[bytes] = list(request.symbols)
    if symbols[:1] not in ([], [b""]):
        raise BodyError(400, "the first symbol is not empty")
    found = Collected()
    for series in request.timeseries:
        refs = list(series.labels_refs)
        try:
            labels = tuple(symbols[ref] for ref in refs)
        except IndexError:
            if count := len(series.samples):
                found.fault("name", f"a series refers to a symbol beyond the {len(symbols)} given", count)
            continue
        name = _names[labels] or _new(labels, _pairs_v2, series, found)
        if name is not None:
            _samples(name, series, found)
    return found.done()


def _decode(kind: str, data: bytes) -> Any:
    message = _proto[kind]()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise BodyError(400, f"the body is not a remote-write protobuf: {str(error)[:100]}") from None
    return message


def _new(labels: tuple[bytes, ...], pairs: Pairs, series: Any, found: Collected) -> str | None:
    """The name of a new series; ``None`` if it has no valid name, then its samples are counted."""
    try:
        if len(labels) + sum(map(len, labels)) > LABEL_BYTES:
            raise ValueError(f"its labels have more than {LABEL_BYTES} bytes")
        found_pairs = pairs(labels)
        texts = {name.decode(): value.decode() for name, value in found_pairs}
        if len(texts) < len(found_pairs):
            raise ValueError("it has a label twice")
        if not (metric := texts.pop("__name__", "")):
            raise ValueError("it has no __name__")
        return _names.keep(labels, named(metric, texts.items()))
    except (ValueError, DecodeError) as error:
        if series.samples:
            found.fault("name", f"a series can't be named: {str(error)[:200]}", len(series.samples))
        return None


def _samples(name: str, series: Any, found: Collected) -> None:
    if histograms := len(series.histograms):
        found.skipped["histogram"] += histograms
    strange = 0
    for sample in series.samples:
        value, time = sample.value, sample.timestamp / 1000
        if value != value and struct.pack(">d", value) == STALE:
            found.skipped["stale"] += 1
        elif in_calendar(time):
            found.add(name, time, value)
        else:
            strange += 1
    if strange:
        found.fault("malformed", f"{name[:60]}: {strange} samples have times that no calendar shows", strange)


def _pairs_v1(labels: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    found = []
    for label in labels:
        message = _proto["Label"]()
        message.ParseFromString(label)
        found.append((message.name, message.value))
    return found


def _pairs_v2(labels: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    if len(labels) % 2:
        raise ValueError("its labels are no pairs")
    return list(zip(labels[::2], labels[1::2], strict=True))
