"""``kill -9`` at any moment, many times: while the daemon starts, runs, saves, drains, reloads and has reloaded.

One stream of sound and one sensor continue through all kills. At the end both must equal those without kills: every
final and marker with its number and its times, every reading once, the same forecast. For the reload each model's file
is replaced by another version with the same weights, which the next start uses.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.victim import Victim, until
from streamer.client import StreamClient
from streamer.client.replay import ReplayBounds
from streamer.contract.manifest import KEY
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model

__all__ = ["run"]

KILLS = 200
MOMENTS = ("start", "run", "save", "drain", "reloaded", "reload")
SENSOR = "forecast-online"
SETTINGS = {"checkpoint_seconds": 0.1, "sensor_save_seconds": 0.3, "drain_seconds": 5, "min_free_bytes": 0}
#: Bounds of the client, which reconnects at once.
BOUNDS: ReplayBounds = {"retry_seconds": 600.0, "first_delay": 0.05, "max_delay": 0.3}
#: Samples of a message, and samples between two markers.
PIECE, MARKED = 1600, 20
#: Readings of one request to the sensor for comparison, which gets all readings afterwards.
TOGETHER = 500


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    with tempfile.TemporaryDirectory() as folder, setup.model_path(str(model) if model else None) as path:
        yield from Siege(Path(folder), path, max(len(MOMENTS), round(KILLS * scale.share)), scale.seed).rows()


class Siege:
    def __init__(self, folder: Path, model: Path, kills: int, seed: int) -> None:
        self.folder, self.kills = folder, kills
        self.files = [VersionedFile(folder, path) for path in (model, resolve(SENSOR))]
        self.models = [file.path for file in self.files]
        self.rng = random.Random(seed)
        self.reload_seconds = 1.0
        self.rate = Model.load(model).manifest.input.sample_rate or 16000
        self.sound = setup.sound(self.rate, 60, seed).tobytes()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.moments: Counter[str] = Counter()
        self.over = threading.Event()
        self.sent = 0
        self.readings: list[tuple[float, float]] = []
        self.odd: list[str] = []

    def rows(self) -> Iterator[AttackRow]:
        sender = threading.Thread(target=self._send_readings)
        sender.start()
        try:
            events, victim = asyncio.run(self._disturbed())
        finally:
            self.over.set()
            sender.join()
        try:
            moments = ", ".join(f"{count} {name}" for name, count in sorted(self.moments.items()))
            yield AttackRow("kills", "starts", "all become ready", f"{moments}; failed: {self.odd[:3]}", not self.odd)
            whole = asyncio.run(self._undisturbed())
            differ = sum(one != other for one, other in zip(events, whole, strict=False)) + abs(
                len(events) - len(whole)
            )
            found = f"{len(whole)} finals and markers, {len(events)} received, {differ} differ"
            yield AttackRow("kills", "sound", "the events of a stream without kills", found, not differ and bool(whole))
            yield from self._sensor(victim)
            code = victim.end()
            yield AttackRow("kills", "the end", "exit 0", f"exit {code}", code == 0)
        finally:
            victim.end(signal.SIGKILL)

    # -- the attack ----------------------------------------------------------------------------------------------------

    async def _disturbed(self) -> tuple[list[str], Victim]:
        killing = asyncio.create_task(asyncio.to_thread(self._kill))
        async with StreamClient(self._url, sample_rate=self.rate, partials=False, **BOUNDS) as stream:
            while not killing.done() or self.sent < len(self.sound) // 4:
                await stream.send(self._piece(self.sent))
                self.sent += 2 * PIECE
                if self.sent // (2 * PIECE) % MARKED == 0:
                    await stream.marker(str(self.sent))
                if not killing.done():
                    await asyncio.sleep(PIECE / self.rate / 2)
            victim = await killing
            await stream.end()
            return [_text(event) async for event in stream], victim

    def _kill(self) -> Victim:
        """Start and kill the daemon ``kills`` times; returns one more, which runs."""
        for number in range(self.kills):
            moment = MOMENTS[number % len(MOMENTS)]
            self.moments[moment] += 1
            victim = self._start()
            if moment == "start":
                time.sleep(self.rng.random() * 1.5)
            else:
                if not victim.wait_ready():
                    self.odd.append(victim.output()[-300:])
                    continue
                time.sleep(self.rng.random() * 0.5)
            if moment == "save":
                log = self.folder / "state" / "sessions.sqlite-wal"
                before = log.stat().st_mtime_ns if log.exists() else 0
                until(lambda log=log, before=before: log.stat().st_mtime_ns != before, 10)  # type: ignore[misc]
            elif moment == "drain":
                victim.process.send_signal(signal.SIGTERM)
                time.sleep(self.rng.random() * 0.2)
            elif moment == "reloaded":
                begin = time.monotonic()
                self._reload(victim)
                until(lambda victim=victim: self._reloads(victim) == len(self.files))  # type: ignore[misc]
                self.reload_seconds = time.monotonic() - begin
                time.sleep(self.rng.random() * 0.5)
            elif moment == "reload":
                self._reload(victim)
                time.sleep(self.rng.random() * self.reload_seconds)
            if not victim.lives and victim.process.returncode != 0:
                self.odd.append(victim.output()[-300:])
            victim.end(signal.SIGKILL)
        victim = self._start()
        if not victim.wait_ready():
            self.odd.append(victim.output()[-300:])
        return victim

    def _reload(self, victim: Victim) -> None:
        for file in self.files:
            file.exchange()
        victim.process.send_signal(signal.SIGHUP)

    def _reloads(self, victim: Victim) -> int:
        page = victim.get("/metrics")[1]
        found = re.findall(r'^streamer_model_reloads_total\{.*outcome="(\w+)"\} (\S+)$', page, re.M)
        if any(outcome == "failed" and float(count) for outcome, count in found):
            self.odd.append("a reload failed")
            return len(self.files)
        return int(sum(float(count) for outcome, count in found if outcome == "reloaded"))

    def _start(self) -> Victim:
        return Victim(self.folder, self.models, port=self.port, **SETTINGS)

    @property
    def _url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def _piece(self, at: int) -> bytes:
        at %= len(self.sound) - 2 * PIECE
        return self.sound[at : at + 2 * PIECE]

    def _send_readings(self) -> None:
        """Send readings one by one, each until it is accepted."""
        rng, number = random.Random(7), 0
        while not self.over.wait(0.02):
            reading = (1_700_000_000.0 + 60 * number, round(20 + rng.gauss(0, 1), 3))
            while not self._post("disturbed", [reading]):
                if self.over.wait(0.05):
                    return
            self.readings.append(reading)
            number += 1

    def _post(self, name: str, readings: list[tuple[float, float]]) -> bool:
        body = "".join(json.dumps({"id": name, "ts": ts, "value": value}) + "\n" for ts, value in readings)
        try:
            return _request(self.port, body.encode()) == 200
        except OSError:
            return False

    # -- the comparison ------------------------------------------------------------------------------------------------

    async def _undisturbed(self) -> list[str]:
        async with StreamClient(self._url, sample_rate=self.rate, partials=False) as stream:
            for at in range(0, self.sent, 2 * PIECE):
                await stream.send(self._piece(at))
                if (at // (2 * PIECE) + 1) % MARKED == 0:
                    await stream.marker(str(at + 2 * PIECE))
            await stream.end()
            return [_text(event) async for event in stream]

    def _sensor(self, victim: Victim) -> Iterator[AttackRow]:
        for first in range(0, len(self.readings), TOGETHER):
            until(lambda first=first: self._post("twin", self.readings[first : first + TOGETHER]))  # type: ignore[misc]
        count = len(self.readings)
        twin = self._forecast(victim, "twin", count)
        mine = self._forecast(victim, "disturbed", count)
        ran = int(mine["scores"]["readings"])
        # there may be one more: it was accepted, but a kill prevented the answer
        found = f"{count} were acknowledged, {ran} were run"
        yield AttackRow("kills", "readings", "each once", found, ran in (count, count + 1) and count > 0)
        if ran == count:
            differ = [
                key for key in ("value", "time", "quantiles", "anomaly", "drift") if twin.get(key) != mine.get(key)
            ]
            yield AttackRow("kills", "forecast", "that of a sensor without kills", f"{differ} differ", not differ)

    def _forecast(self, victim: Victim, name: str, readings: int) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = victim.forecast(name)
            return found if found is not None and found["scores"]["readings"] >= readings else None

        found = until(there)
        assert isinstance(found, dict)
        return found


class VersionedFile:
    """A copy of a model's file in ``folder``, and another version beside it with the same weights."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.path, self._other = folder / model.name, folder / f"{model.name}.other"
        shutil.copy(model, self.path)
        other = onnx.load(str(model))
        for prop in other.metadata_props:
            if prop.key == KEY:
                prop.value = json.dumps(json.loads(prop.value) | {"version": "other"})
        onnx.save(other, str(self._other))

    def exchange(self) -> None:
        """Exchange the files atomically: the path always has a file."""
        before = self.path.with_name(f"{self.path.name}.before")
        before.unlink(missing_ok=True)
        before.hardlink_to(self.path)
        self._other.replace(self.path)
        before.replace(self._other)


def _text(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True)


def _request(port: int, body: bytes) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/v1/readings", body)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
