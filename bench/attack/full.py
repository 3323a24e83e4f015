"""A disk that fills and is emptied, many times, while a daemon serves sound and sensors, and while it starts.

It uses a real file system of four megabytes. Each time, ``/readyz`` must be 503 and ``/healthz`` 200, readings that
can't be written must be refused, the existing stream must continue, and everything must work again once there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.small_disk import SmallDisk, small_disk
from bench.attack.victim import Victim, until
from streamer.client import StreamClient
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model

__all__ = ["run"]

ROUNDS = 20
SETTINGS = {"checkpoint_seconds": 0.1, "sensor_save_seconds": 0.3, "min_free_bytes": 0}


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    rounds = max(2, round(ROUNDS * scale.share))
    with tempfile.TemporaryDirectory() as folder, setup.model_path(str(model) if model else None) as path:
        try:
            with small_disk(Path(folder)) as disk:
                yield from _filled(Path(folder), path, disk, rounds, scale.seed)
        except PermissionError as error:
            yield AttackRow("full", "a file system of its own", "can be mounted", str(error), False)


def _filled(folder: Path, model: Path, disk: SmallDisk, rounds: int, seed: int) -> Iterator[AttackRow]:
    models, state = [model, resolve("forecast-online")], disk.path / "state"
    disk.fill()
    victim = Victim(folder / "daemon", models, state=state, **SETTINGS)
    try:
        until(lambda: victim.get("/readyz")[0] == 503 and "full" in victim.get("/readyz")[1])
        alive = victim.get("/healthz")[0]
        yield AttackRow("full", "a start", "up, /healthz 200, /readyz 503", f"/healthz {alive}", alive == 200)
        disk.empty()
        ready = victim.wait_ready()
        yield AttackRow("full", "room after the start", "/readyz 200", f"ready: {ready}", ready)
        rate = Model.load(model).manifest.input.sample_rate or 16000
        sound = setup.sound(rate, rounds, seed).tobytes()
        taken, odd, events = asyncio.run(_rounds(victim, disk, sound, rate, rounds))
        found = f"{rounds} times; unexpected: {odd[:3]}"
        yield AttackRow("full", "filled while it runs", "503 and back, readings are stored or refused", found, not odd)
        whole = asyncio.run(_transcribed(victim.port, sound, rate))
        yield AttackRow(
            "full", "the stream meanwhile", "as without the attack", f"{len(events)} events", events == whole
        )
        victim.end(signal.SIGKILL)
        victim = Victim(folder / "daemon", models, state=state, **SETTINGS)
        victim.wait_ready()
        ran = 0

        def all_ran() -> bool:  # readings in the journal are run again after the start
            nonlocal ran
            known = victim.forecast("a")
            ran = 0 if known is None else int(known["scores"]["readings"])
            return ran >= taken

        with contextlib.suppress(TimeoutError):
            until(all_ran, 30)
        yield AttackRow("full", "readings after kill -9", f"all {taken} accepted", f"{ran}", ran == taken)
    finally:
        victim.end(signal.SIGKILL)


async def _rounds(
    victim: Victim, disk: SmallDisk, sound: bytes, rate: int, rounds: int
) -> tuple[int, list[str], list[str]]:
    """The number of accepted readings, unexpected observations, the events of the stream."""
    taken, odd, second = 0, list[str](), 2 * rate
    url = f"ws://127.0.0.1:{victim.port}/v1/stream"
    async with StreamClient(url, sample_rate=rate, partials=False) as stream:
        for number in range(rounds):
            disk.fill()
            await stream.send(sound[number * second : (number + 1) * second])
            status, page = await asyncio.to_thread(_post, victim, number)
            taken += status == 200
            if status not in (200, 503, 507):
                odd.append(f"{status} {page[:100]}")
            await asyncio.to_thread(until, lambda: victim.get("/readyz")[0] == 503)
            if victim.get("/healthz")[0] != 200:
                odd.append("/healthz is not 200")
            disk.empty()
            await asyncio.to_thread(until, lambda: victim.get("/readyz")[0] == 200)
            if status != 200:
                again, page = await asyncio.to_thread(_post, victim, number)
                taken += again == 200
                if again != 200:
                    odd.append(f"{again} {page[:100]}")
        await stream.end()
        return taken, odd, [json.dumps(event, sort_keys=True) async for event in stream]


def _post(victim: Victim, number: int) -> tuple[int, str]:
    reading = {"id": "a", "ts": 1_700_000_000 + 60 * number, "value": float(number)}
    return victim.get("/v1/readings", (json.dumps(reading) + "\n").encode())


async def _transcribed(port: int, sound: bytes, rate: int) -> list[str]:
    async with StreamClient(f"ws://127.0.0.1:{port}/v1/stream", sample_rate=rate, partials=False) as stream:
        await stream.send(sound)
        await stream.end()
        return [json.dumps(event, sort_keys=True) async for event in stream]
