"""Traces of a real daemon, as a real collector gets them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.serve.otel import OtelTracer, wanted
from streamer.settings import Settings
from tests.daemon.prometheus import wait
from tests.daemon.running import ROOT, Running, daemon
from tests.daemon.talk import noise, opened, until_closed
from tests.serve.collector import Collector, attributes, collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
PARTS = ("queue", "run", "decode")
RAW = "application/octet-stream"
WORD = "Rumpelstilzchen"


@pytest.fixture
def taker() -> Iterator[Collector]:
    with collector() as found:
        yield found


def traced(taker: Collector, **more: Any) -> dict[str, Any]:
    return {"otel_endpoint": taker.url, "otel_chunk_share": 1.0, "checkpoint_seconds": 0.2, **more}


def end(running: Running) -> None:
    assert running.stop(signal.SIGTERM) == 0


@pytest.mark.long
def test_a_stream_from_its_clients_trace_to_its_chunks(toy: Path, trap: Path, tmp_path: Path, taker: Collector) -> None:
    async def main(running: Running) -> str:
        async with websockets.connect(running.url, additional_headers=PARENT, compression=None) as socket:
            await socket.send(json.dumps({"type": "start", "sample_rate": 8000, "model": "toy"}))
            ready = json.loads(await socket.recv())
            await socket.send(noise(1, 1.0))
            await socket.send('{"type":"end"}')
            await until_closed(socket)
        async with opened(running.url, model="trap") as (socket, _):
            await socket.send(np.full(800, 32767, np.int16).tobytes())
            await until_closed(socket)
        return ready["stream"]

    with daemon(tmp_path, toy, trap, **traced(taker)) as running:
        name = asyncio.run(main(running))
        end(running)
    connections = {attributes(span)["streamer.close_code"]: span for span in taker.spans("connection", 2)}
    streams = {attributes(span)["streamer.model"]: span for span in taker.spans("stream", 2)}
    connection, stream = connections[1000], streams["toy"]
    assert (connection.trace_id.hex(), connection.parent_span_id.hex()) == (TRACE, SPAN)
    assert attributes(connection)["url.path"] == "/v1/stream"
    assert (stream.trace_id.hex(), stream.parent_span_id) == (TRACE, connection.span_id)
    told = {"streamer.stream": name, "streamer.model": "toy", "streamer.task": "transcribe", "streamer.resumed": False}
    assert attributes(stream).items() >= told.items()
    assert attributes(stream)["streamer.received"] == 8000
    chunks = [span for span in taker.spans("chunk") if span.parent_span_id == stream.span_id]
    assert len(chunks) >= 25  # of 40 ms, each
    first = chunks[0]
    assert attributes(first) == {"streamer.model": "toy", "streamer.batch_size": 1}
    parts = [next(s for s in taker.spans(f"chunk {p}") if s.parent_span_id == first.span_id) for p in PARTS]
    edges = [first.start_time_unix_nano, *(part.end_time_unix_nano for part in parts)]
    assert edges == sorted(edges)
    assert [part.start_time_unix_nano for part in parts] == edges[:-1]
    assert edges[-1] == first.end_time_unix_nano
    assert stream.start_time_unix_nano <= edges[0] < edges[-1] <= stream.end_time_unix_nano
    failed = streams["trap"]
    assert (failed.status.message, attributes(failed)["error.type"]) == ("model_failed", "model_failed")
    assert failed.trace_id.hex() != TRACE
    assert taker.resources[0]["service.name"] == "streamer"


@pytest.mark.long
def test_requests_and_readings(tmp_path: Path, toy: Path, taker: Collector) -> None:
    with daemon(tmp_path, toy, resolve("forecast-online"), **traced(taker)) as running:
        rows = "time,level\n" + "".join(f"{60 * n},{n % 7}\n" for n in range(50))
        head = {"Content-Type": "text/csv", **PARENT}
        assert running.ask("POST", "/v1/readings?missing=x", rows.encode(), head).status == 200
        posted = running.ask("POST", "/v1/streams/k?model=toy", noise(2, 0.5), {"Content-Type": RAW})
        assert running.ask("POST", "/v1/streams/k?model=nobody", b"", {}).status == 404
        for path in ("/metrics", "/healthz", "/readyz", "/"):
            running.ask("GET", path)
        end(running)
    requests = taker.spans("request", 3)
    told = [attributes(span) for span in requests]
    assert [(one["http.request.method"], one["url.path"]) for one in told] == [
        ("POST", "/v1/readings"),
        ("POST", "/v1/streams/k"),
        ("POST", "/v1/streams/k"),
    ]
    assert [one["http.response.status_code"] for one in told] == [200, 200, 404]
    assert posted.status == 200, posted.text
    assert (requests[0].trace_id.hex(), requests[0].parent_span_id.hex()) == (TRACE, SPAN)
    (stream,) = taker.spans("stream")
    assert stream.parent_span_id == requests[1].span_id
    pieces = taker.spans("readings")
    assert sum(attributes(piece)["streamer.done"] for piece in pieces) == 50
    assert {"readings queue", "readings run"} <= set(taker.names)


@pytest.mark.long
def test_a_collector_that_hangs_holds_nobody_up(toy: Path, tmp_path: Path, taker: Collector) -> None:
    """Spans that find no room, or are not taken, are dropped and counted; results come all the same."""
    taker.open.clear()
    with daemon(tmp_path, toy, **traced(taker, otel_max_waiting_spans=8, otel_seconds=1)) as running:

        async def main() -> None:
            async with opened(running.url) as (socket, _):
                await socket.send(noise(3, 2.0))
                await socket.send('{"type":"end"}')
                events, code = await until_closed(socket)
                assert (events[-1]["type"], code) == ("end", 1000)

        asyncio.run(main())
        page = running.metrics()
        assert page['streamer_spans_total{outcome="full"}'] > 50
        assert page["streamer_waiting_spans"] <= page['streamer_limit{name="otel_max_waiting_spans"}'] == 8
        assert taker.asked.wait(30)
        wait(lambda: running.metrics()['streamer_spans_total{outcome="failed"}'] > 0)
        wait(lambda: "the collector does not take spans" in running.errors.read_text())
        taker.open.set()
        asyncio.run(main())
        wait(lambda: running.metrics()['streamer_spans_total{outcome="sent"}'] > 0)
        end(running)
    assert "the collector takes spans again" in running.errors.read_text()


def test_nothing_said_stands_in_a_span(toy: Path, tmp_path: Path, taker: Collector) -> None:
    async def main(running: Running) -> str:
        async with opened(running.url, options={"hotwords": [WORD]}) as (socket, _):
            await until_closed(socket)
        async with opened(running.url) as (socket, _):
            await socket.send(noise(4, 1.0))
            await socket.send('{"type":"end"}')
            events, _ = await until_closed(socket)
        return "".join(event["text"] for event in events if event["type"] == "final")

    with daemon(tmp_path, toy, **traced(taker)) as running:
        said = asyncio.run(main(running))
        end(running)
    taker.spans("stream")
    assert len(said) > 4
    sent = b"".join(taker.bodies)
    assert said.encode() not in sent
    assert WORD.encode() not in sent
    assert noise(4, 1.0)[1000:1040] not in sent


def test_off_nothing_of_it_is_loaded() -> None:
    code = """
import sys
from streamer.metrics import Metrics
from streamer.serve.daemon import start_tracing
from streamer.settings import Settings
import streamer.commands.serve
assert start_tracing(Settings(), Metrics()) is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_without_the_extra_it_says_how_to_get_it(toy: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["opentelemetry.sdk.trace"] = None
from pathlib import Path
from streamer.serve.run import run
from streamer.settings import Settings
sys.exit(run(Settings(otel_endpoint="http://127.0.0.1:9", port=0, state_directory=Path(sys.argv[1]))))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78, done.stderr
    assert "pip install 'streamer[otel]'" in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetrys_own_variables_say_so_too(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wanted(Settings()) is expected


def test_the_share_of_chunks_is_what_is_asked_for() -> None:
    tracer = OtelTracer(Settings(otel_endpoint="http://127.0.0.1:9", otel_chunk_share=0.01), Metrics())
    try:
        found = [tracer.chosen(8) for _ in range(20000)]
        rows = [row for row in found if row is not None]
        assert 1600 * 0.8 < len(rows) < 1600 * 1.2
        assert set(rows) == set(range(8))
        assert tracer.chosen(0) is None
    finally:
        tracer.close()
