"""Sensors in a real daemon: every way in and out over HTTP and WebSocket, restarts, and what must do no harm."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from prometheus_client import CollectorRegistry

from bench.attack.gaps import attack
from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.choice import NoSensorsError
from streamer.sensors.host import Sensors
from streamer.sensors.writes import BusyError
from streamer.settings import Settings
from tests.daemon.running import Running, daemon
from tests.sensors.support import batch, feed, fleet, lives
from tests.serve.senders import field, otlp, request_v1, request_v2, sample, snappy, varint

MODEL = resolve("forecast-online")
PROTO = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
V2 = {**PROTO, "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for a module's gentler tests; each has streams of its own."""
    with daemon(tmp_path_factory.mktemp("sensors"), MODEL, max_sensors=50, max_body_bytes=2**20) as running:
        yield running


def post(
    running: Running, path: str, body: bytes, method: str = "POST", timeout: float = 60, **headers: str
) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=timeout)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def forecast(running: Running, stream: str, readings: int) -> dict[str, Any]:
    """Of a stream, once so many of its readings were run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status, body = running.get(f"/v1/forecast/{stream}")
        if status == 200 and (found := json.loads(body))["scores"]["readings"] >= readings:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{stream}: {status} {body[:200]}")


def ndjson(readings: list[tuple[str, float, float | None]]) -> bytes:
    rows = ({"id": name, "ts": 1_700_000_000 + 3600 * hour, "value": value} for name, hour, value in readings)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_batch_of_lines_is_taken_and_answered_with_forecasts(sensors: Running) -> None:
    given = [(name.replace("s", "nd"), hour, value) for name, hour, value in lives(2, 60)]
    half = len(given) // 2
    status, body, _ = post(sensors, "/v1/readings", gzip.compress(ndjson(given[:half])), Content_Encoding="gzip")
    assert (status, json.loads(body)) == (200, {"taken": half, "refused": 0})
    status, body, headers = post(sensors, "/v1/readings?forecast=1", ndjson(given[half:]))
    assert status == 200
    assert headers["Content-Type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in body.splitlines()]
    assert [(row["stream"], row["value"]) for row in rows] == [(name, value) for name, _, value in given[half:]]
    last = rows[-1]
    assert last["step"] == 3600
    assert [len(last["quantiles"][level]) for level in ("0.05", "0.5", "0.95")] == [24, 24, 24]
    assert 0 < last["anomaly"] <= 1
    found = forecast(sensors, last["stream"], 2)
    assert found["quantiles"] == last["quantiles"]
    assert found["scores"]["life"]["1"]["mae"] > 0
    assert {"nd0", "nd1"} <= set(json.loads(sensors.get("/v1/forecast?match=nd*")[1])["streams"])


def test_csv_with_named_columns(sensors: Running) -> None:
    csv = b"when,who,what,else\n2026-01-01 00:00,csv/1,1.5,9\n2026-01-01 01:00,csv/1,2.5,9\n"
    status, body, _ = post(sensors, "/v1/readings?time=when&id=who&value=what", csv)
    assert (status, json.loads(body)["taken"]) == (200, 2)
    assert forecast(sensors, "csv/1", 2)["value"] == 2.5


def test_a_name_for_the_only_column(sensors: Running) -> None:
    for at, body in enumerate(
        (b"time,cval\n60,1\n", b'{"time": 120, "cval": 2}', b'{"time": 180, "id": "own", "value": 3}')
    ):
        status, text, _ = post(sensors, f"/v1/readings?forecast=1&stream=foo{at}", body)
        assert status == 200
        assert json.loads(text)["stream"] == ("own" if at == 2 else f"foo{at}")  # a line that names its own keeps it
    assert json.loads(sensors.get("/v1/forecast?match=*cval*")[1])["streams"] == []


def test_bad_lines_are_told_of_and_the_others_taken(sensors: Running) -> None:
    lines = ndjson([("bad", 0, 1.0)]) + b'{"id": "bad"}\nnonsense\n' + ndjson([("bad", 1, 2.0)])
    status, body, _ = post(sensors, "/v1/readings", lines)
    answer = json.loads(body)
    assert (status, answer["taken"], answer["refused"]) == (400, 2, 2)
    assert "line 3" in answer["errors"][1]
    assert forecast(sensors, "bad", 2)["value"] == 2.0


def test_line_protocol_as_telegraf_writes_it(sensors: Running) -> None:
    lines = b"".join(b"air,room=a temperature=%d,ok=t %d\n" % (20 + i % 3, 1_700_000_000 + 60 * i) for i in range(30))
    path = "/api/v2/write?org=o&bucket=b&precision=s"
    assert post(sensors, path, gzip.compress(lines), Content_Encoding="gzip", Authorization="Token t")[:2] == (204, "")
    found = forecast(sensors, 'air.temperature{room="a"}'.replace("{", "%7B").replace('"', "%22"), 30)
    assert (found["value"], found["step"]) == (22.0, 60.0)
    status, body, _ = post(sensors, "/write?db=d&precision=n", b"old value=1 1700000000000000000\nold value=x\n")
    assert status == 400
    assert "line 2" in json.loads(body)["message"]
    assert forecast(sensors, "old", 1)["time"] == 1_700_000_000
    status, body, _ = post(sensors, path, b"nonsense")
    assert status == 400
    assert post(sensors, "/write?precision=fortnights", b"a value=1 1")[0] == 400


@pytest.mark.parametrize(("headers", "make", "name"), [(PROTO, request_v1, "one"), (V2, request_v2, "two")])
def test_remote_write(sensors: Running, headers: dict[str, str], make: Any, name: str) -> None:
    for minute in range(12):
        body = snappy(make(*(({"__name__": name, "n": str(n)}, [(n + minute, 60_000 * minute)]) for n in range(3))))
        status, _, answer = post(sensors, "/api/v1/write", body, **headers)
        assert (status, answer["X-Prometheus-Remote-Write-Samples-Written"]) == (204, "3")
    assert forecast(sensors, f"{name}%7Bn=%222%22%7D", 12)["step"] == 60
    assert post(sensors, "/api/v1/write", b"junk", **headers)[0] == 400
    assert post(sensors, "/api/v1/write", snappy(b"\xff" * 50), **headers)[0] == 400
    assert post(sensors, "/api/v1/write", body, **{**headers, "Content-Encoding": "zstd"})[0] == 415
    bomb = snappy(bytes(80 * 2**20))
    status, text, _ = post(sensors, "/api/v1/write", bomb if len(bomb) < 2**20 else bomb[: 2**20 - 1], **headers)
    assert status == 413
    assert "max_unpacked_bytes" in text


def test_otlp(sensors: Running) -> None:
    at = varint(3 << 3 | 1) + (1_700_000_000 * 10**9).to_bytes(8, "little")
    gauge = field(2, field(1, b"ot") + field(5, field(1, at + varint(4 << 3 | 1) + sample(5.0, 0)[1:9])))
    status, body, headers = post(sensors, "/v1/metrics", otlp(gauge), Content_Type="application/x-protobuf")
    assert (status, body, headers["Content-Type"]) == (200, "", "application/x-protobuf")
    assert forecast(sensors, "ot", 1)["value"] == 5.0


def test_bodies_have_a_bound_and_it_is_told(sensors: Running) -> None:
    status, body, _ = post(sensors, "/v1/readings", b"x" * (2**20 + 1))
    assert status == 413
    assert "max_body_bytes" in body
    bomb = gzip.compress(bytes(70 * 2**20))
    assert post(sensors, "/v1/readings", bomb, Content_Encoding="gzip")[0] == 413
    assert post(sensors, "/v1/readings", b"no gzip", Content_Encoding="gzip")[0] == 400
    assert post(sensors, "/v1/readings", b"a", Content_Encoding="br")[0] == 415
    assert post(sensors, "/v1/readings", b"")[0] == 400
    assert sensors.get("/healthz")[0] == 200


def test_a_stream_can_be_forgotten(sensors: Running) -> None:
    post(sensors, "/v1/readings", ndjson([("gone", 0, 1.0)]))
    forecast(sensors, "gone", 1)
    assert post(sensors, "/v1/forecast/gone", b"", "DELETE")[0] == 204
    assert post(sensors, "/v1/forecast/gone", b"", "DELETE")[0] == 404
    assert sensors.get("/v1/forecast/gone")[0] == 404


def test_a_websocket_brings_readings_and_gets_forecasts(sensors: Running) -> None:
    async def talk() -> None:
        url = f"ws://127.0.0.1:{sensors.port}/v1/sensors"
        async with websockets.connect(url) as one, websockets.connect(url) as other:
            await other.send(json.dumps({"type": "subscribe", "streams": ["ws.*"]}))
            assert json.loads(await other.recv()) == {"type": "subscribed", "streams": ["ws.*"]}
            for hour in range(20):
                await one.send(json.dumps({"id": "ws", "ts": 3600 * hour, "a": hour, "b": -hour, "note": "x"}))
                await one.send(json.dumps({"id": "quiet", "ts": 3600 * hour, "a": hour}))
                for _ in range(2):
                    assert json.loads(await one.recv())["type"] == "taken"
            found = [json.loads(await other.recv()) for _ in range(40)]
            assert sorted((row["stream"], row["value"]) for row in found) == sorted(
                (name, sign * hour) for name, sign in (("ws.a", 1), ("ws.b", -1)) for hour in range(20)
            )
            assert all(row["type"] == "forecast" and len(row["quantiles"]["0.5"]) == 24 for row in found)
            await one.send('{"id": "ws"}\n{"id": "ws", "ts": 90000, "a": 1}')
            answer = json.loads(await one.recv())
            assert (answer["readings"], answer["refused"], len(answer["errors"])) == (1, 1, 1)

    asyncio.run(talk())


TOO_MANY = json.dumps({"type": "subscribe", "streams": ["x"] * 65})


@pytest.mark.parametrize("frame", [b"\0\0", '{"type": "subscribe", "streams": 5}', TOO_MANY])
def test_a_websocket_frame_that_means_nothing_closes_with_the_reason(sensors: Running, frame: str | bytes) -> None:
    async def talk() -> None:
        async with websockets.connect(f"ws://127.0.0.1:{sensors.port}/v1/sensors") as socket:
            await socket.send(frame)
            assert json.loads(await socket.recv())["code"] == "bad_frame"
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()

    asyncio.run(talk())


@pytest.mark.long
@pytest.mark.soak
def test_a_million_new_series_are_capped_counted_and_refused_aloud(tmp_path: Path) -> None:
    with daemon(tmp_path, MODEL, max_sensors=40, max_body_bytes=2**26, max_unpacked_bytes=2**28) as running:
        post(running, "/v1/readings", ndjson([("old", 0, 1.0)]))
        # a request of many series is those of each, one behind the other; made one by one they take longest of all
        before, behind = request_v1(({"__name__": "m", "i": "0000000"}, [(1.0, 1000)])).split(b"0000000")
        series = b"".join(before + b"%07d" % i + behind for i in range(1_000_000))
        status, body, headers = post(running, "/api/v1/write", snappy(series), timeout=600, **PROTO)
        assert status == 400
        assert "999961 readings are of more than 40 sensors (max_sensors)" in body
        assert headers["X-Prometheus-Remote-Write-Samples-Written"] == "39"
        assert post(running, "/v1/readings", ndjson([("old", 1, 2.0)]))[0] == 200
        assert forecast(running, "old", 2)["value"] == 2.0
        page = running.metrics()
        assert page['streamer_refused_readings_total{reason="capacity"}'] == 999_961
        assert page["streamer_sensors"] == 40


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_a_restart_loses_nothing_that_was_acknowledged(tmp_path: Path, number: signal.Signals) -> None:
    given = lives(4, 50, seed=3)
    for part in np.array_split(np.arange(len(given)), 2):
        with daemon(tmp_path, MODEL) as running:
            for piece in np.array_split(part, 3):
                assert post(running, "/v1/readings", ndjson([given[i] for i in piece]))[0] == 200
            running.stop(number)
    whole = fleet(capacity=4, step=None, gap=240)
    feed(whole, given)
    whole.close()
    with daemon(tmp_path, MODEL) as running:
        for stream in range(4):
            own = [reading for reading in given if reading[0] == f"s{stream}"]
            found = forecast(running, f"s{stream}", len(own))
            assert found["scores"]["readings"] == len(own)
            expected = whole.table.latest.quantiles[whole.slots[f"s{stream}"]]
            assert np.allclose(np.array(list(found["quantiles"].values())).T, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_forecasts_are_on_the_metrics_page_as_far_as_there_is_room(tmp_path: Path) -> None:
    settings = {"metrics_sensors": "b*,a*", "max_sensor_series": 40, "max_top_anomalies": 3, "sensor_step": 3600}
    with daemon(tmp_path, MODEL, **settings) as running:
        given = [(name, hour, float(hour % 3)) for hour in range(40) for name in ("a1", "a2", "b1", "c1", "c2")]
        given.append(("c2", 40, 1000.0))
        post(running, "/v1/readings?forecast=1", ndjson(given))
        page = running.metrics()
        shown = {key.split('stream="')[1].split('"')[0] for key in page if key.startswith("streamer_forecast_reading{")}
        assert shown == {"b1", "a1"}
        assert page["streamer_sensor_series"] == 2 * 15 <= page["streamer_sensor_series_limit"] == 40
        assert page["streamer_sensors_left_out"] == 1
        low, middle, high = (
            page[f'streamer_forecast{{ahead="24",level="{q}",stream="b1"}}'] for q in ("0.05", "0.5", "0.95")
        )
        assert low <= middle <= high
        assert page['streamer_forecast_mase{ahead="1",stream="b1"}'] > 0
        top = [key for key in page if key.startswith("streamer_anomaly_top{")]
        assert len(top) == 3
        assert page['streamer_anomaly_top{stream="c2"}'] < 0.01
        assert page["streamer_readings_run_total"] == len(given)
        assert page['streamer_readings_total{protocol="http"}'] == len(given)


@pytest.mark.long
def test_too_much_at_a_time_is_answered_with_come_back(tmp_path: Path) -> None:
    with daemon(tmp_path, MODEL, max_waiting_readings=1000, lanes=1) as running:
        big = ndjson([("a", hour, math.sin(hour)) for hour in range(40000)])
        answers: list[int] = []
        sender = threading.Thread(target=lambda: answers.append(post(running, "/v1/readings", big)[0]))
        sender.start()  # it is answered when all of it is run
        deadline = time.monotonic() + 60
        while running.metrics()["streamer_waiting_readings"] <= 1000:
            assert time.monotonic() < deadline
        status, body, headers = post(running, "/v1/readings", ndjson([("b", hour, 1.0) for hour in range(1000)]))
        assert status == 503
        assert "max_waiting_readings" in body
        assert int(headers["Retry-After"]) >= 1
        page = running.metrics()
        assert page['streamer_refused_readings_total{reason="busy"}'] == 1000
        assert page["streamer_waiting_readings"] > 0  # it was answered meanwhile
        sender.join()
        assert answers == [200]


def test_without_a_model_for_sensors_it_is_said_so(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy) as running:
        status, body, _ = post(running, "/v1/readings", ndjson([("a", 0, 1.0)]))
        assert status == 404
        assert "no model for sensors" in body


def test_while_it_starts_a_sender_is_to_come_again(tmp_path: Path) -> None:
    """What a remote write is told with 4xx, it drops."""
    starting = Sensors(Settings(state_directory=tmp_path), Metrics(CollectorRegistry()))
    with pytest.raises(BusyError, match="starting"):
        asyncio.run(starting.take(batch([("a", 0.0, 1.0)]), "http"))
    for ask in (starting.look, starting.names):
        with pytest.raises(BusyError, match="starting"):
            ask("a")
    starting.load([])
    with pytest.raises(NoSensorsError):
        starting.look("a")


@pytest.mark.long
def test_two_models_for_sensors_are_refused(tmp_path: Path) -> None:
    running = Running(tmp_path, MODEL, resolve("forecast-universal"), wait=False)
    assert running.process.wait(60) == 78
    assert "one model for sensors of one value" in running.errors.read_text()
    running.manager.close()


def test_readings_are_taken_in_the_order_they_have_in_the_batch(sensors: Running) -> None:
    given = batch([("order", 3, 3.0), ("order", 1, 1.0)])
    assert given.times.tolist() == [3 * 3600.0, 3600.0]
    post(sensors, "/v1/readings", ndjson([("order", 3, 3.0), ("order", 1, 1.0), ("order", 4, 4.0)]))
    found = forecast(sensors, "order", 2)
    assert (found["scores"]["readings"], found["scores"]["late"]) == (2, 1)


@pytest.mark.long
@pytest.mark.parametrize("query", ["", "?forecast=1"])
def test_who_waits_for_readings_is_answered_when_the_daemon_goes_down(tmp_path: Path, query: str) -> None:
    """They are on the disk: taken, or to be asked again; no connection is cut."""
    readings = [(name, at / 3600, value) for name, at, value in attack(1000, 0)]
    with daemon(tmp_path, MODEL, lanes=1, drain_seconds=1) as running, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, running, f"/v1/readings{query}", ndjson(readings))
        while running.metrics()["streamer_waiting_readings"] < 1:
            pass
        assert running.stop(signal.SIGTERM) == 0
        status, body, _ = waiting.result(60)
        if query:
            assert (status, "run after the next start" in body) == (503, True)
        else:
            assert (status, json.loads(body)["taken"]) == (200, len(readings))
        assert "Exception" not in running.errors.read_text()
