"""Sends readings to a daemon by each of its protocols, as fast as it takes them.

HTTP: two senders with a connection each, ``TOGETHER`` readings a request, encoded beforehand; a sender waits for the
answer, which comes when the readings are on the disk (of the temporary folder). MQTT: one client publishes through a
real mosquitto, one reading a message, a topic for each sensor. With QoS 1 the broker sends the daemon as many messages
as may be unacknowledged; with QoS 0 the broker drops messages that the daemon is too slow for, which shows as
``dropped``. Forecasts are published, the latest of each sensor, which is the daemon's default. The rate is that of
readings run, by the daemon's metrics, from the first byte to the last forecast; CPU time is that of the daemon only.
Senders and broker run on the same cores. The daemon is killed at the end, so neither the periodic save nor the one at
a clean end counts.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import setup

#: Readings of a request.
TOGETHER = 5000
SENDERS = 2
#: Seconds between readings of a sensor, and the time of the first.
STEP, EPOCH = 60, 1_767_225_600
#: After so many seconds without a run, the remaining readings count as lost.
QUIET = 3.0
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
PROTO = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
PROTO2 = PROTO | {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}

Values = NDArray[np.float64]


class Body(NamedTuple):
    """The encoding of a request with readings of some sensors at one time (unix seconds)."""

    path: str
    headers: dict[str, str]
    encode: Callable[[Sequence[int], Values, int], bytes]


def lines(sensors: Sequence[int], values: Values, at: int) -> bytes:
    pairs = zip(sensors, values.tolist(), strict=True)
    return "".join(f"temperature,host=h{sensor} value={value!r} {at}\n" for sensor, value in pairs).encode()


def write_v1(sensors: Sequence[int], values: Values, at: int) -> bytes:
    import cramjam

    request = _messages()["Request"]()
    for sensor, value in zip(sensors, values.tolist(), strict=True):
        series = request.timeseries.add()
        for name, text in _labels(sensor).items():
            series.labels.add(name=name, value=text)
        series.samples.add(value=value, timestamp=1000 * at)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def write_v2(sensors: Sequence[int], values: Values, at: int) -> bytes:
    import cramjam

    request = _messages()["Request2"]()
    symbols: dict[bytes, int] = {b"": 0}
    for sensor, value in zip(sensors, values.tolist(), strict=True):
        texts = (text for pair in _labels(sensor).items() for text in pair)
        series = request.timeseries.add(labels_refs=[symbols.setdefault(text, len(symbols)) for text in texts])
        series.samples.add(value=value, timestamp=1000 * at)
    request.symbols.extend(symbols)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


HTTP = {
    "Influx line protocol": Body("/api/v2/write?precision=s", {}, lines),
    "remote write 1.0": Body("/api/v1/write", PROTO, write_v1),
    "remote write 2.0": Body("/api/v1/write", PROTO2, write_v2),
}
MQTT = {"MQTT, QoS 0": 0, "MQTT, QoS 1": 1}


def _labels(sensor: int) -> dict[bytes, bytes]:
    return {b"__name__": b"temperature", b"host": b"h%d" % sensor, b"job": b"bench"}


def _messages(found: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006  # made once
    if not found:
        from streamer.serve.proto import messages

        table = {
            "Sample": {"value": (1, "double"), "timestamp": (2, "int64")},
            "Label": {"name": (1, "bytes"), "value": (2, "bytes")},
            "Series": {"labels": (1, "Label*"), "samples": (2, "Sample*")},
            "Request": {"timeseries": (1, "Series*")},
            "Series2": {"labels_refs": (1, "uint32*"), "samples": (2, "Sample*")},
            "Request2": {"symbols": (4, "bytes*"), "timeseries": (5, "Series2*")},
        }
        found |= messages("bench_ways.proto", table)
    return found


def measure(path: Path, rounds: Values, way: str) -> dict[str, float]:
    """Send ``rounds`` [rounds, sensors] by the protocol ``way``; the first round opens the streams and does not count.
    Returns readings run per second, CPU seconds of the daemon per reading, and the share of readings not run."""
    sensors = rounds.shape[1]
    settings = {"max_sensors": sensors, "sensor_step": STEP, "max_sensor_series": 0, "max_top_anomalies": 0}
    settings |= {"max_state_bytes": 2**36}
    with contextlib.ExitStack() as stack:
        if way in MQTT:
            port = stack.enter_context(broker())
            settings |= {"mqtt_host": "127.0.0.1", "mqtt_port": port, "mqtt_topics": "bench/#"}
        environment = {f"STREAMER_{name.upper()}": str(value) for name, value in settings.items()}
        served = stack.enter_context(setup.serving(path, **environment))
        stack.callback(served.process.kill)
        if way in MQTT:
            served.wait_for("streamer_mqtt_connected", 1)
            sending = stack.enter_context(published(port, rounds, MQTT[way]))
        else:
            sending = stack.enter_context(posted(served.port, rounds, HTTP[way]))
        next(sending)
        _quiet(served, sensors)
        before, cpu, begin = served.value("streamer_readings_run_total"), served.cpu_seconds(), time.perf_counter()
        for _ in sending:
            pass
        sent = rounds[1:].size
        end, run = _quiet(served, before + sent)
        took, used, run = end - begin, served.cpu_seconds() - cpu, run - before
        acknowledged = served.value("streamer_readings_total") - before
        if run != acknowledged:
            raise SystemExit(f"{way}: {acknowledged:g} readings were acknowledged and {run:g} were forecast")
    return {"per_second": run / took, "cpu": used / run, "dropped": (sent - run) / sent}


def _quiet(served: setup.Served, wanted: float) -> tuple[float, float]:
    """The time of the last run, and the number of readings run: ``wanted``, or less if no more follow."""
    last, at = -1.0, time.perf_counter()
    while last < wanted and time.perf_counter() < at + QUIET:
        if (found := served.value("streamer_readings_run_total")) > last:
            last, at = found, time.perf_counter()
        time.sleep(0.02)
    return at, last


@contextlib.contextmanager
def posted(port: int, rounds: Values, body: Body) -> Iterator[Iterator[None]]:
    """An iterator that posts the first round at its first step, then all others. Readings of one sensor use one
    connection."""
    sensors = np.arange(rounds.shape[1])
    parts = [part for part in np.array_split(sensors, max(SENDERS, -(-len(sensors) // TOGETHER))) if len(part)]
    made = [
        [body.encode(part.tolist(), row[part], EPOCH + STEP * number) for number, row in enumerate(rounds)]
        for part in parts
    ]

    def send(own: Sequence[bytes], failed: list[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for one in own:
            status = 503
            while status == 503:  # too many readings wait
                connection.request("POST", body.path, one, body.headers)
                answer = connection.getresponse()
                status, said = answer.status, answer.read()
                if status == 503:
                    time.sleep(0.1)
            if status != 204:
                failed.append(f"{status} {said[:200]!r}")
        connection.close()

    def all_of(which: slice) -> None:
        failed: list[str] = []
        mine = [
            [one for turn in zip(*(own[which] for own in made[sender::SENDERS]), strict=True) for one in turn]
            for sender in range(SENDERS)
        ]
        threads = [threading.Thread(target=send, args=(own, failed)) for own in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise SystemExit(f"{body.path}: {failed[0]}")

    def both() -> Iterator[None]:
        all_of(slice(0, 1))
        yield
        all_of(slice(1, None))

    yield both()


@contextlib.contextmanager
def published(port: int, rounds: Values, qos: int) -> Iterator[Iterator[None]]:
    """As :func:`posted`, by MQTT. Each step ends when the broker has accepted all messages."""
    from paho.mqtt import client, enums

    publisher = client.Client(enums.CallbackAPIVersion.VERSION2, protocol=client.MQTTv5)
    publisher.max_inflight_messages_set(1000)
    publisher.connect("127.0.0.1", port)
    publisher.loop_start()

    def send(row: Values, qos: int) -> None:
        infos = [publisher.publish(f"bench/{sensor}", repr(value), qos) for sensor, value in enumerate(row.tolist())]
        for info in infos:
            info.wait_for_publish(60)

    def both() -> Iterator[None]:
        send(rounds[0], 1)
        yield
        for row in rounds[1:]:
            send(row, qos)

    try:
        yield both()
    finally:
        publisher.disconnect()
        publisher.loop_stop()


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """A running mosquitto; yields its port."""
    assert MOSQUITTO is not None
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        config = Path(folder) / "mosquitto.conf"
        said = [f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0", "log_dest none"]
        config.write_text("\n".join(said) + "\n")
        process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        raise SystemExit("mosquitto does not start") from None
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(30)
