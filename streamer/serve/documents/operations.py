"""Summary, parameters and answers of every route: one line a route, by its method and path as the router has them.

Paths, scopes and bodies come from the code; this table has the rest. A test fails for a route without a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamer.serve.documents import answers as a
from streamer.serve.generate import GenerateRequest
from streamer.serve.openai.requests import TranscriptionRequest
from streamer.serve.pages.sensors import ORDERS

__all__ = ["EVENTS", "FORM", "OPERATIONS", "Operation"]

JSON, TEXT, LINES, BYTES = "application/json", "text/plain", "application/x-ndjson", "application/octet-stream"
FORM, EVENTS, HTML = "multipart/form-data", "text/event-stream", "text/html"
PAGE_TYPES = (HTML, "text/css", "text/javascript", "image/svg+xml")
#: The schema of a body or answer that is not JSON.
ANY: dict[str, Any] = {}
RAW: dict[str, Any] = {"type": "string", "format": "binary"}
WORD: dict[str, Any] = {"type": "string", "maxLength": 200}
FLAG: dict[str, Any] = {"enum": ["0", "1"]}
NUMBER: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{1,9}$"}
#: A parameter that may be repeated.
WORDS: dict[str, Any] = {"type": "array", "items": WORD, "maxItems": 8}


@dataclass(frozen=True)
class Operation:
    """``answers``: for each status the media types, and the type of each (``None``: no body). ``errors``: statuses
    whose body is an :class:`~streamer.serve.documents.answers.ErrorAnswer`, or ``error``. ``query`` and ``body``: the
    type of each parameter and media type; ``names``: the kind of a path parameter."""

    tag: str
    summary: str
    answers: Mapping[int, Mapping[str, Any] | None]
    errors: tuple[int, ...] = ()
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    error: Any = a.ErrorAnswer


def _text(*statuses: int) -> dict[int, Mapping[str, Any] | None]:
    return {status: {TEXT: {"type": "string"}} for status in statuses}


def _json(kind: Any, status: int = 200) -> dict[int, Mapping[str, Any] | None]:
    return {status: {JSON: kind}}


NOTHING: dict[int, Mapping[str, Any] | None] = {204: None}
OWNER = {"owner": WORD}
PLACE = {"model": WORD, "position": {"type": "string", "pattern": "^[0-9]{1,15}$"}, "safe": FLAG, "end": FLAG}
COLUMNS = {"id": WORDS, "time": WORDS, "value": WORDS, "missing": WORDS, "columns": WORD,
           "decimal": {"enum": [".", ","]}, "time_format": WORD, "zone": WORD, "model": WORD, "stream": WORD,
           "forecast": FLAG | {"description": "1: with forecasts; a token needs the scope read, too"}}  # fmt: skip
ROWS = {JSON: a.RowBatch, LINES: RAW, BYTES: RAW}
SENSORS, STREAMS, ADMIN, SPEECH, HEALTH = "sensors", "streams", "administration", "speech", "health"
KSERVE, INFLUX, PAGES = "KServe v2", "InfluxDB", "pages"
NO_SENSORS = (400, 404, 409, 413, 415, 503, 507)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(
        PAGES, "List of routes; for a browser: captions", {200: {TEXT: {"type": "string"}, HTML: {"type": "string"}}}
    ),
    ("GET", "/forecasts"): Operation(PAGES, "For a browser: forecasts", {200: {HTML: {"type": "string"}}}),
    ("GET", "/engine"): Operation(PAGES, "For a browser: the engine", {200: {HTML: {"type": "string"}}}),
    ("GET", "/pages/charts.json"): Operation(PAGES, "Where the chart library is", _json(a.ChartFiles)),
    ("GET", "/pages/{file}"): Operation(PAGES, "A file of the pages", {200: dict.fromkeys(PAGE_TYPES, RAW)}, (404,)),
    ("GET", "/v1/engine"): Operation(PAGES, "What the engine does now", _json(a.EngineNumbers)),
    ("GET", "/v1/sensor-list"): Operation(
        PAGES,
        "Some of the sensors",
        _json(a.SensorList),
        (400, 404, 503),
        {"search": WORD, "order": {"enum": list(ORDERS)}, "offset": NUMBER, "limit": NUMBER},
    ),
    ("GET", "/v1/history/{stream}"): Operation(
        PAGES,
        "Past readings of a sensor, and their forecasts",
        _json(a.SensorPast),
        (400, 404, 409, 503),
        {"limit": NUMBER, "model": WORD},
    ),
    ("GET", "/healthz"): Operation(HEALTH, "Does the process live?", _text(200, 503)),
    ("GET", "/readyz"): Operation(HEALTH, "Are new streams welcome?", _text(200, 503)),
    ("GET", "/openapi.json"): Operation(HEALTH, "This document", _json({"type": "object"})),
    ("GET", "/asyncapi.json"): Operation(HEALTH, "AsyncAPI document of the WebSockets", _json({"type": "object"})),
    ("GET", "/metrics"): Operation(
        HEALTH,
        "Metrics for Prometheus",
        {200: {TEXT: {"type": "string"}, "application/openmetrics-text": {"type": "string"}}},
    ),
    ("GET", "/v1/models"): Operation(STREAMS, "What is served", _json(a.ServedModels)),
    ("GET", "/v1/models/{name}"): Operation(
        SPEECH, "One model, for OpenAI's clients", _json(a.OpenAIModel), (404, 503), error=a.OpenAIErrorAnswer
    ),
    ("POST", "/v1/audio/transcriptions"): Operation(
        SPEECH,
        "Write down a recording (OpenAI)",
        {200: {JSON: a.TranscriptAnswer, TEXT: {"type": "string"}, EVENTS: {"type": "string"}}},
        (400, 404, 413, 500, 503),
        body={FORM: TranscriptionRequest},
        error=a.OpenAIErrorAnswer,
    ),
    ("POST", "/v1/streams/{key}"): Operation(
        STREAMS,
        "Rows in, outputs out; the stream goes on with the next request",
        {200: {JSON: "streamed", LINES: RAW}},
        (308, 400, 404, 409, 413, 415, 429, 500, 503, 504),
        PLACE,
        ROWS,
    ),
    ("GET", "/v1/streams/{key}"): Operation(
        STREAMS, "A stream's position and state", _json(a.StreamPlace), (308, 400, 404, 409, 503)
    ),
    ("DELETE", "/v1/streams/{key}"): Operation(STREAMS, "Forget a stream", NOTHING, (308, 400, 404, 409, 503)),
    ("POST", "/v1/generate"): Operation(
        STREAMS,
        "Output of a generator, one event a line",
        {200: {LINES: RAW}},
        (400, 404, 409, 413, 429, 503),
        body={JSON: GenerateRequest},
    ),
    ("POST", "/v1/readings"): Operation(
        SENSORS,
        "Readings as CSV or JSON lines",
        {200: {JSON: a.TakenReadings, LINES: RAW}},
        NO_SENSORS,
        COLUMNS,
        {"text/csv": RAW, LINES: RAW},
        error={"anyOf": [a.ErrorAnswer, a.TakenReadings]},
    ),
    ("POST", "/api/v2/write"): Operation(
        SENSORS,
        "Readings in InfluxDB's line protocol",
        NOTHING,
        NO_SENSORS,
        {"precision": {"enum": ["ns", "us", "ms", "s", "m", "h"]}},
        {TEXT: RAW},
    ),
    ("POST", "/write"): Operation(
        SENSORS,
        "Readings in the line protocol, as for InfluxDB 1",
        NOTHING,
        NO_SENSORS,
        {"precision": {"enum": ["n", "u", "ms", "s", "m", "h"]}},
        {TEXT: RAW},
    ),
    ("POST", "/api/v1/write"): Operation(
        SENSORS, "Prometheus remote write 1.0 and 2.0", NOTHING, NO_SENSORS, body={"application/x-protobuf": RAW}
    ),
    ("POST", "/v1/metrics"): Operation(
        SENSORS,
        "Metrics by OTLP",
        {200: {JSON: {"type": "object"}, "application/x-protobuf": RAW}},
        NO_SENSORS,
        body={JSON: {"type": "object"}, "application/x-protobuf": RAW},
    ),
    ("GET", "/v1/forecast"): Operation(
        SENSORS, "Sensors by name", _json(a.SensorNames), (404, 503), {"match": WORD, "after": WORD}
    ),
    ("GET", "/v1/forecast/{stream}"): Operation(
        SENSORS,
        "A sensor's last reading, forecast and scores",
        _json(a.SensorState),
        (307, 400, 404, 409, 503),
        {"model": WORD},
    ),
    ("DELETE", "/v1/forecast/{stream}"): Operation(
        SENSORS, "Forget a sensor", NOTHING, (307, 400, 404, 409, 503, 507), {"model": WORD}
    ),
    ("GET", "/ping"): Operation(INFLUX, "Is it up?", {**NOTHING, **_json(a.InfluxVersion)}, (), {"verbose": FLAG}),
    ("POST", "/ping"): Operation(INFLUX, "Is it up?", {**NOTHING, **_json(a.InfluxVersion)}, (), {"verbose": FLAG}),
    ("GET", "/health"): Operation(
        INFLUX, "Are readings taken?", {**_json(a.InfluxHealth), **_json(a.InfluxHealth, 503)}
    ),
    ("GET", "/query"): Operation(
        INFLUX, "Queries that writers send when they start", _json(a.InfluxResults), (400,), {"q": {"type": "string"}}
    ),
    ("POST", "/query"): Operation(
        INFLUX,
        "The same",
        _json(a.InfluxResults),
        (400, 413, 503),
        {"q": {"type": "string"}},
        {"application/x-www-form-urlencoded": {"type": "object", "properties": {"q": {"type": "string"}}}},
    ),
    ("GET", "/v1/sessions"): Operation(ADMIN, "Every stream", _json(a.StreamList), (503,), {"after": WORD}),
    ("POST", "/v1/sessions/{id}/evict"): Operation(ADMIN, "Put a stream to sleep", NOTHING, (404, 409, 503), OWNER),
    ("GET", "/v1/sessions/{id}"): Operation(
        ADMIN, "A stream as bytes", {200: {BYTES: RAW}}, (400, 404, 409, 503), OWNER
    ),
    ("PUT", "/v1/sessions/{id}"): Operation(
        ADMIN,
        "Bring a stream",
        _json(a.BroughtStream, 201),
        (400, 404, 409, 413, 503),
        OWNER,
        {BYTES: RAW},
    ),
    ("GET", "/v1/sensor-states/{name}"): Operation(
        ADMIN, "A sensor as bytes", {200: {BYTES: RAW}}, (404, 409, 503), {**OWNER, "model": WORD}
    ),
    ("PUT", "/v1/sensor-states/{name}"): Operation(
        ADMIN,
        "Bring a sensor",
        _json(a.BroughtSensor, 201),
        (400, 404, 409, 413, 503),
        {**OWNER, "model": WORD},
        {BYTES: RAW},
    ),
    ("POST", "/v1/drain"): Operation(
        ADMIN, "Move everything to another daemon", _json(a.MovedAnswer), (400, 413, 502, 503), body={JSON: a.MoveWish}
    ),
    ("DELETE", "/v1/drain"): Operation(ADMIN, "Take new streams again", NOTHING),
    ("POST", "/v1/reload"): Operation(ADMIN, "Load model files that changed", _json(a.ReloadAnswer), (503,)),
    ("GET", "/v2"): Operation(KSERVE, "The server", _json(a.InferServer)),
    ("GET", "/v2/health/live"): Operation(KSERVE, "Is the server live?", {200: None}),
    ("GET", "/v2/health/ready"): Operation(KSERVE, "Is the server ready?", {200: None}, (503,)),
    ("GET", "/v2/models/stats"): Operation(KSERVE, "Statistics of all models", _json({"type": "object"}), (404, 503)),
    ("POST", "/v2/repository/index"): Operation(
        KSERVE, "All models", _json({"type": "array", "items": a.InferListing})
    ),
}
for _model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
    _gone = (400, 404, 501, 503)  # 501: paths of extensions that are not served
    OPERATIONS |= {
        ("GET", _model): Operation(KSERVE, "A model's inputs and outputs", _json(a.InferModel), _gone),
        ("GET", f"{_model}/ready"): Operation(KSERVE, "Is a model ready?", {200: None}, _gone),
        ("GET", f"{_model}/config"): Operation(KSERVE, "A model's configuration", _json({"type": "object"}), _gone),
        ("GET", f"{_model}/stats"): Operation(KSERVE, "A model's statistics", _json({"type": "object"}), _gone),
        ("POST", f"{_model}/infer"): Operation(
            KSERVE,
            "Run a chunk, of a stream or alone",
            {200: {JSON: a.InferResult, BYTES: RAW}},
            (400, 404, 409, 413, 415, 429, 500, 501, 503, 504),
            body={JSON: a.InferBody, BYTES: RAW},
        ),
    }
