"""Wyoming's events on the wire, without any I/O: a line of JSON, then JSON data, then a payload, of announced lengths.

The package ``wyoming`` reads without bounds, and takes damaged events for the end of the connection, so this module
parses them itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from streamer import __version__
from streamer.refusals import Refused
from streamer.render import dumped
from streamer.serve.strict_json import strict_json

__all__ = ["MAX_HEADER", "EventHeader", "WyomingEvent", "encode_event", "parse_data", "parse_header"]

#: Most bytes of a header with its line end, and of the data after it: asyncio's own bound for a line.
MAX_HEADER = MAX_DATA = 64 * 1024


@dataclass(frozen=True)
class WyomingEvent:
    type: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True)
class EventHeader:
    """``data``: the data in the header itself. Lengths in bytes, 0 for none."""

    type: str
    data: dict[str, Any]
    data_length: int
    payload_length: int


def parse_header(line: bytes, max_payload: int) -> EventHeader:
    """Raises :class:`Refused`."""
    document = _object(line, "a line that is no event")
    kind, data = document.get("type"), document.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise Refused("bad_frame", "an event has a type, a text, and data, an object")
    lengths = []
    for name, most in (("data_length", MAX_DATA), ("payload_length", max_payload)):
        length = document.get(name) or 0
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise Refused("bad_frame", f"{name} of {kind[:60]!r} is no number of bytes")
        if length > most:
            raise Refused("too_long", f"{name} of {kind[:60]!r} is {length}, the limit is {most}: send shorter events")
        lengths.append(length)
    return EventHeader(kind, data, *lengths)


def parse_data(header: EventHeader, data: bytes, payload: bytes) -> WyomingEvent:
    """The whole event; data after the header replaces data in it. Raises :class:`Refused`."""
    more = _object(data, f"the data of {header.type[:60]!r}") if data else {}
    return WyomingEvent(header.type, header.data | more, payload)


def encode_event(kind: str, data: dict[str, Any] | None = None) -> bytes:
    header: dict[str, Any] = {"type": kind, "version": __version__}
    if not data:
        return json.dumps(header).encode() + b"\n"
    body = dumped(data).encode()
    return json.dumps(header | {"data_length": len(body)}).encode() + b"\n" + body


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = strict_json(data)
    except ValueError as error:
        raise Refused("bad_json", f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused("bad_json", f"{what} is not a JSON object")
    return found
