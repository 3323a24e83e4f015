"""OpenTelemetry's metrics over HTTP, as protobuf and as JSON: gauges and sums; other kinds are rejected, counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from streamer.json_words import json_trouble
from streamer.names import SERIES_CHARACTERS
from streamer.serve.readings.parsed import BodyError, Collected, Parsed, named
from streamer.sources.times import in_calendar

__all__ = ["answer", "parse"]

#: Flag of a data point without a value.
NO_VALUE = 1
OTHERS = ("histogram", "exponentialHistogram", "summary")


def parse(body: bytes, content_type: str) -> Parsed:
    """Parse a body. Raises :class:`BodyError`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        request = _from_json(body)
    elif kind == "application/x-protobuf":
        request = _from_protobuf(body)
    else:
        raise BodyError(415, f"Content-Type {kind[:60]!r}: application/x-protobuf or application/json")
    found = Collected()
    try:
        _collect(request, found)
    except (TypeError, AttributeError, RecursionError) as error:
        raise BodyError(400, f"the body is not an ExportMetricsServiceRequest: {json_trouble(error)[:100]}") from None
    return found.done()


def answer(content_type: str, rejected: int, message: str) -> tuple[bytes, str]:
    """Body and content type of the response, in the request's encoding."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        partial = {"rejectedDataPoints": str(rejected), "errorMessage": message} if rejected else {}
        return json.dumps({"partialSuccess": partial}).encode(), "application/json"
    reply = _messages()["Reply"]()
    if rejected:
        reply.partial.rejected, reply.partial.message = rejected, message.encode()
    return reply.SerializeToString(), "application/x-protobuf"


def _collect(request: dict[str, Any], found: Collected) -> None:
    for resource in request.get("resourceMetrics", ()):
        outer = _attributes(resource.get("resource", {}).get("attributes", ()))
        for scope in resource.get("scopeMetrics", ()):
            for metric in scope.get("metrics", ()):
                points = [p for kind in ("gauge", "sum") for p in metric.get(kind, {}).get("dataPoints", ())]
                for kind in OTHERS:
                    if other := len(metric.get(kind, {}).get("dataPoints", ())):
                        found.fault("histogram", f"{str(metric.get('name'))[:60]!r} is a {kind}", other)
                _points(str(metric.get("name", "")), outer, points, found)


def _points(metric: str, outer: dict[str, str], points: Sequence[dict[str, Any]], found: Collected) -> None:
    # the metric's name and attributes are in the name of every point: if they are too long, they are not copied
    if points and len(metric) + sum(len(key) + len(given) + 1 for key, given in outer.items()) > SERIES_CHARACTERS:
        message = f"{metric[:60]!r} and the attributes of its resource have more than {SERIES_CHARACTERS} characters"
        found.fault("malformed", message, len(points))
        return
    for point in points:
        try:
            name = named(metric, (outer | _attributes(point.get("attributes", ()))).items())
            time, value = _time(point.get("timeUnixNano", 0)), _value(name, point)
        except (ValueError, OverflowError) as error:
            found.fault("malformed", str(error)[:200])
            continue
        found.add(name, time, value)


def _time(given: Any) -> float:
    """Unix seconds; NaN for a point without a time."""
    time = _integer(given) / 1e9
    if time and not in_calendar(time):
        raise ValueError(f"timeUnixNano {str(given)[:40]} is not a time that a calendar shows")
    return time or float("nan")


def _value(name: str, point: dict[str, Any]) -> float:
    if _integer(point.get("flags", 0)) & NO_VALUE:
        return float("nan")
    if "asInt" in point:
        return float(_integer(point["asInt"]))
    given = point.get("asDouble")
    # JSON's mapping writes NaN and infinity as text, and takes numbers as text
    if isinstance(given, bool) or not isinstance(given, (int, float, str)) or (isinstance(given, str) and "_" in given):
        raise ValueError(f"{name[:60]}: a data point has no value")
    return float(given)


def _integer(given: Any) -> int:
    """A 64-bit integer, which the JSON mapping writes as text."""
    if isinstance(given, bool) or not re.fullmatch("-?[0-9]{1,20}", str(given)):
        raise ValueError(f"{str(given)[:40]!r} is not an integer of 64 bits")
    return int(given)


def _attributes(pairs: Iterable[Any]) -> dict[str, str]:
    """The attributes with text, numbers or booleans."""
    found = {}
    for pair in pairs:
        value = pair.get("value", {})
        for kind in ("stringValue", "boolValue", "intValue", "doubleValue"):
            if kind in value:
                found[str(pair.get("key", ""))] = str(value[kind])
    return found


def _from_json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BodyError(400, f"the body is not JSON: {json_trouble(error)[:100]}") from None
    if not isinstance(found, dict):
        raise BodyError(400, "the body is not a JSON object")
    return found


def _from_protobuf(body: bytes) -> dict[str, Any]:
    """A protobuf message in the form of the JSON mapping."""
    request = _messages()["Request"]()
    from google.protobuf.message import DecodeError

    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise BodyError(400, f"the body is not an ExportMetricsServiceRequest: {str(error)[:100]}") from None
    found: dict[str, Any] = _plain(request)
    return found


def _plain(message: Any) -> Any:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if isinstance(value, bytes):
            # invalid UTF-8 becomes unprintable characters, which no name may contain
            found[field.name] = value.decode(errors="surrogateescape")
        elif field.message_type is None:
            found[field.name] = value
        elif field.is_repeated:
            found[field.name] = [_plain(item) for item in value]
        else:
            found[field.name] = _plain(value)
    return found


def _messages() -> dict[str, Any]:
    global _made
    if not _made:
        try:
            from streamer.serve.proto import messages
        except ImportError as error:
            raise BodyError(501, f"{error.name} is missing: pip install 'streamer[sensors]'") from error
        points = {"dataPoints": (1, "Point*")}
        _made = messages(
            "streamer_otlp.proto",
            {
                "Value": {
                    "stringValue": (1, "bytes"),
                    "boolValue": (2, "bool"),
                    "intValue": (3, "int64"),
                    "doubleValue": (4, "double"),
                },
                "Attribute": {"key": (1, "bytes"), "value": (2, "Value")},
                "Point": {
                    "timeUnixNano": (3, "fixed64"),
                    "asDouble": (4, "double"),
                    "asInt": (6, "sfixed64"),
                    "attributes": (7, "Attribute*"),
                    "flags": (8, "uint32"),
                },
                "Points": points,
                "Other": {"dataPoints": (1, "bytes*")},
                "Metric": {
                    "name": (1, "bytes"),
                    "gauge": (5, "Points"),
                    "sum": (7, "Points"),
                    "histogram": (9, "Other"),
                    "exponentialHistogram": (10, "Other"),
                    "summary": (11, "Other"),
                },
                "Scope": {"metrics": (2, "Metric*")},
                "Resource": {"attributes": (1, "Attribute*")},
                "ResourceMetrics": {"resource": (1, "Resource"), "scopeMetrics": (2, "Scope*")},
                "Request": {"resourceMetrics": (1, "ResourceMetrics*")},
                "Partial": {"rejected": (1, "int64"), "message": (2, "bytes")},
                "Reply": {"partial": (1, "Partial")},
            },
        )
    return _made


_made: dict[str, Any] = {}
