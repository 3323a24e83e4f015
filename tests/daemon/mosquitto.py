"""A real broker, mosquitto, in a process of its own, and what stands around the client under test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from streamer.sensors.columns import ReadingBatch
from streamer.sources.mqtt import Mqtt, MqttOptions, Subscription, Watch

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
__all__ = ["Broker", "Daemon", "heard", "need_mosquitto", "other", "say", "until"]

NUMBERS = Subscription.parse("n/#")


class Broker:
    def __init__(self, folder: Path, *lines: str, anonymous: bool = True):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._folder, self._config = folder, folder / "mosquitto.conf"
        said = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", "log_dest stderr"]
        said += ["persistence true", f"persistence_location {folder}/", "max_queued_messages 10000"]
        said += ["max_inflight_messages 10000", *lines]
        if os.geteuid() == 0:
            said.append("user root")  # else it gives up the folder together with its rights
        self._config.write_text("\n".join(said) + "\n")

    def start(self) -> Broker:
        assert MOSQUITTO is not None
        with (self._folder / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stderr=stderr)
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return self
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    self.stop()
                    raise AssertionError((self._folder / "stderr").read_text()[-3000:]) from None
                time.sleep(0.02)

    def pause(self) -> None:
        """What it is sent from now on waits in its sockets."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """It saves its sessions."""
        self.resume()  # after a test that failed meanwhile
        self._process.terminate()
        self._process.wait(30)


def need_mosquitto() -> None:
    if MOSQUITTO is None:
        assert "CI" not in os.environ, "mosquitto is missing: apt install mosquitto"
        pytest.skip("mosquitto is not installed")


class Daemon:
    """What stands around an :class:`Mqtt`: it keeps readings, unless the test wants trouble."""

    def __init__(self) -> None:
        self.batches: list[ReadingBatch] = []
        self.messages, self.forecasts = Counter[str](), Counter[str]()
        self.connected, self.connections, self.reconnects, self.failures = False, 0, 0, 0
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.models: Mapping[str, Sequence[str]] | None = None
        self.refused: dict[str, str] | None = None
        self.failing: set[str] = set()  # models whose next batch can't be taken

    async def take(self, batches: Mapping[str, ReadingBatch]) -> Mapping[str, Exception]:
        self.asked += 1
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        failed = {model: OSError("disk full") for model in batches if model in self.failing}
        self.failing -= set(failed)
        self.batches += (batch for model, batch in batches.items() if model not in failed)
        return failed

    @property
    def values(self) -> list[float]:
        return [float(value) for batch in self.batches for value in batch.values.ravel()]

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch.names]

    @contextlib.asynccontextmanager
    async def running(self, port: int, *subscriptions: Subscription, **options: Any) -> AsyncIterator[Mqtt]:
        async with self.trying(port, *subscriptions, **options) as mqtt:
            await until(lambda: self.connected)
            yield mqtt

    @contextlib.asynccontextmanager
    async def trying(self, port: int, *subscriptions: Subscription, **options: Any) -> AsyncIterator[Mqtt]:
        quick = {"first_delay": 0.01, "max_delay": 0.1}
        chosen = MqttOptions(subscriptions or (NUMBERS,), **{"port": port, **quick, **options})
        watch = Watch(self._connected, self._reconnect, self._message, self._forecast, self._refused)
        mqtt = Mqtt(chosen, self.take, watch, self.models)
        task = asyncio.create_task(mqtt.run())
        try:
            yield mqtt
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not self.connected

    def _connected(self, yes: bool) -> None:
        self.connected = yes
        self.connections += yes

    def _reconnect(self) -> None:
        self.reconnects += 1

    def _message(self, outcome: str, count: int) -> None:
        self.messages[outcome] += count

    def _refused(self, patterns: Mapping[str, str]) -> None:
        self.refused = dict(patterns)

    def _forecast(self, outcome: str, count: int) -> None:
        self.forecasts[outcome] += count


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def other(port: int, *topics: str) -> AsyncIterator[aiomqtt.Client]:
    """Somebody else's plain client."""
    async with aiomqtt.Client("127.0.0.1", port, timeout=60) as client:
        for topic in topics:
            await client.subscribe(topic)
        yield client


async def say(port: int, values: range, qos: int = 1, topic: str = "n/a") -> None:
    async with other(port) as client:
        for value in values:
            await client.publish(topic, str(value), qos)


async def heard(client: aiomqtt.Client, count: int) -> list[tuple[str, Any]]:
    async with asyncio.timeout(60):
        found = [await anext(client.messages) for _ in range(count)]
    return [(message.topic.value, json.loads(message.payload)) for message in found]
