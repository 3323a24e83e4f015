"""Coming to a real broker, and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import mqtt5
import pytest
from prometheus_client import CollectorRegistry

from streamer.metrics import Metrics
from streamer.sensors.host import Sensors
from streamer.serve.outbox import Outbox
from streamer.serve.readings import broker as readings
from streamer.settings import Settings
from streamer.sources import SourceError
from streamer.sources.mqtt import Subscription
from tests.daemon.certificates import Authority
from tests.daemon.mosquitto import Broker, Daemon, need_mosquitto, until


def test_a_broker_that_is_not_there_is_tried_again_and_again() -> None:
    async def main() -> None:
        daemon = Daemon()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens
            async with daemon.trying(taken.getsockname()[1]):
                await until(lambda: daemon.reconnects >= 3)
        assert daemon.connections == 0

    asyncio.run(main())


def test_an_end_amid_connecting_leaves_nothing_open() -> None:
    async def main() -> None:
        daemon, came, gone = Daemon(), 0, 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came, gone
            came += 1
            with contextlib.suppress(OSError):
                await reader.read()
            gone += 1
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server, daemon.trying(server.sockets[0].getsockname()[1], answer_seconds=0.2):
            await until(lambda: gone >= 2)
            await until(lambda: came > gone)
        await until(lambda: came == gone)

    asyncio.run(main())


def test_a_wrong_password_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need_mosquitto()
    broker = Broker(tmp_path, anonymous=False).start()

    async def main() -> None:
        daemon = Daemon()
        async with daemon.trying(broker.port, username="me", password="secret"):
            await until(lambda: daemon.reconnects >= 1)

    try:
        asyncio.run(main())
    finally:
        broker.stop()
    assert "Not authorized" in caplog.records[0].__dict__["reason"]


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    need_mosquitto()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    broker = Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}").start()

    async def main() -> None:
        daemon = Daemon()
        async with daemon.trying(broker.port, host="localhost", tls=True):  # no authority that the system trusts
            await until(lambda: daemon.reconnects >= 1)
            assert not daemon.connections
        async with daemon.running(broker.port, host="localhost", tls=True, ca_file=str(certificate)):
            pass

    try:
        asyncio.run(main())
    finally:
        broker.stop()
    assert "certificate verify failed" in caplog.records[0].__dict__["reason"]


@pytest.mark.long
def test_a_broker_that_asks_for_our_certificate(tmp_path: Path) -> None:
    need_mosquitto()
    authority = Authority(tmp_path / "certificates")
    certificate, key = authority.issue("broker")
    lines = (f"certfile {certificate}", f"keyfile {key}", f"cafile {authority.pem}", "require_certificate true")
    own, own_key = authority.issue("daemon")
    broker = Broker(tmp_path, *lines).start()

    async def main() -> None:
        daemon = Daemon()
        trusted = {"host": "localhost", "tls": True, "ca_file": str(authority.pem)}
        async with daemon.trying(broker.port, **trusted):
            await until(lambda: daemon.reconnects >= 1)
            assert not daemon.connections
        async with daemon.running(broker.port, **trusted, cert_file=str(own), key_file=str(own_key)):
            pass

    try:
        asyncio.run(main())
    finally:
        broker.stop()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "streamer.sources.mqtt")
    monkeypatch.delitem(sys.modules, "streamer.sources.mqtt_link")
    monkeypatch.setitem(sys.modules, "mqtt5", None)
    with pytest.raises(SourceError, match="pip install"):
        importlib.import_module("streamer.sources.mqtt")


def test_a_refused_subscription_is_said(tmp_path: Path) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A broker that lets nobody read ``secret/#``; mosquitto would say yes and send nothing."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                if data[0] >> 4 == 1:
                    writer.write(mqtt5.ConnAckPacket().write())
                elif data[0] >> 4 == 8:
                    codes = mqtt5.SubAckReasonCode
                    given = [codes.GRANTED_QOS_AT_LEAST_ONCE, codes.NOT_AUTHORIZED]
                    writer.write(mqtt5.SubAckPacket(1, given).write())
        writer.close()

    async def main() -> None:
        daemon = Daemon()
        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        patterns = [Subscription.parse(line) for line in ("n/#", "secret/#")]
        async with server, daemon.running(server.sockets[0].getsockname()[1], *patterns):
            assert daemon.refused == {"secret/#": "Not authorized"}

    asyncio.run(main())


def test_a_refused_subscription_is_in_the_status_and_a_metric(tmp_path: Path) -> None:
    sensors = Sensors(Settings(state_directory=tmp_path), Metrics(CollectorRegistry()))

    async def main() -> None:
        broker = readings.Broker(sensors, Outbox(asyncio.get_running_loop()))
        assert broker.trouble() is None
        broker._refused({"secret/#": "Not authorized"})
        assert broker.trouble() == "the MQTT broker refuses secret/# (Not authorized)"
        assert sensors.metrics.registry.get_sample_value("streamer_mqtt_refused_subscriptions") == 1
        broker._refused({})
        assert broker.trouble() is None

    asyncio.run(main())
