"""The load of years in an hour: 50 million readings and 100 hours of sound at share 1, each in a separate daemon.

Sound: clients connect, send a minute of speech as fast as it is accepted, end, and connect again under a new name.
Readings: requests of some hundred sensors each, some with new names in each round, while the daemon forgets those that
are quiet. Between the pieces of the load, when nothing waits, resident memory and open descriptors are measured. The
first half of the load is warm-up: caches fill and pools grow, for sound over some 2,500 streams, 26 MiB in all. In the
second half memory must stay within 2 %, and the number of descriptors must not grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import websockets

from bench import setup
from bench.attack import AttackRow, Scale
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model

__all__ = ["run"]

READINGS, HOURS = 50_000_000, 100.0
#: Number of measurements after the warm-up; of the first and the last few, the medians of the memory and the least
#: numbers of descriptors are compared.
LOOKS, COMPARED = 27, 5
#: Allowed growth; in runs below share ``SHORT``, in which the allocator's pools still fill, it is higher.
GROWTH, GROWTH_OF_SHORT, SHORT = 0.02, 0.1, 0.1
CLIENTS, SECONDS = 32, 60.0
SENSORS, TOGETHER, EPOCH, STEP = 2000, 500, 1_767_225_600, 60
#: Number of sensors with new names in each round, and the seconds after which the daemon forgets them.
PASSING, KEPT = 5, 20


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    yield from _sound(scale, model or resolve("digits"))
    yield from _readings(scale)


def _allowed(scale: Scale) -> float:
    return GROWTH if scale.share >= SHORT else GROWTH_OF_SHORT


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _watched(
    what: str, allowed: float, served: setup.Served, pieces: int, piece: Callable[[int], None]
) -> Iterator[AttackRow]:
    """Run ``pieces`` pieces of the load, and measure ``LOOKS`` times after the warm-up."""
    looks, open_files, warm = [], [], max(1, pieces // 2)
    every = max(1, (pieces - warm) // LOOKS)
    for number in range(pieces):
        piece(number)
        if number >= warm and (number - warm) % every == 0:
            looks.append(served.resident_bytes())
            open_files.append(descriptors(served.process.pid))
    before, after = statistics.median(looks[:COMPARED]), statistics.median(looks[-COMPARED:])
    found = f"{before / 2**20:.1f} to {after / 2**20:.1f} MiB ({after / before - 1:+.1%})"
    yield AttackRow("endurance", f"{what}: memory", f"{allowed:+.0%}", found, after <= before * (1 + allowed))
    # a connection that is being closed only adds to a look; one that leaks adds to all that follow
    first, last = min(open_files[:COMPARED]), min(open_files[-COMPARED:])
    yield AttackRow("endurance", f"{what}: descriptors", f"{first:g}", f"{last:g}", last <= first)


def _sound(scale: Scale, path: Path) -> Iterator[AttackRow]:
    clients = CLIENTS if scale.share > 0.1 else 4
    seconds = SECONDS if scale.share > 0.1 else 6.0
    pieces = max(LOOKS + 3, round(HOURS * 3600 * scale.share / (clients * seconds)))
    rate = Model.load(path).manifest.input.sample_rate or 16000
    sounds = [setup.sound(rate, seconds, seed).tobytes() for seed in range(8)]
    finished = 0
    with setup.serving(path) as served:

        def piece(number: int) -> None:
            nonlocal finished
            finished += asyncio.run(_come_and_go(served.port, rate, [sounds[i % 8] for i in range(clients)]))

        yield from _watched(
            f"{pieces * clients * seconds / 3600:.3g} hours of sound", _allowed(scale), served, pieces, piece
        )
    wanted = pieces * clients
    yield AttackRow("endurance", "streams with an end event", f"{wanted}", f"{finished}", finished == wanted)


async def _come_and_go(port: int, rate: int, sounds: list[bytes]) -> int:
    """The number of streams with an end event."""

    async def client(data: bytes) -> int:
        async with websockets.connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None) as socket:
            await socket.send(json.dumps({"type": "start", "sample_rate": rate}))

            async def send() -> None:
                for at in range(0, len(data), 2 * rate):
                    await socket.send(data[at : at + 2 * rate])
                await socket.send(json.dumps({"type": "end"}))

            sending = asyncio.create_task(send())
            ended = 0
            async for event in socket:
                ended |= json.loads(event)["type"] == "end"
            await sending
            return ended

    return sum(await asyncio.gather(*map(client, sounds)))


def _readings(scale: Scale) -> Iterator[AttackRow]:
    sensors = max(TOGETHER, round(SENSORS * min(1.0, 10 * scale.share)))
    rounds = max(LOOKS + 3, round(READINGS * scale.share / sensors))
    rounds_a_piece = max(1, rounds // 300)
    settings = {
        "STREAMER_SENSOR_KEEP_SECONDS": str(KEPT),
        "STREAMER_SENSOR_STEP": str(STEP),
        "STREAMER_MAX_SENSORS": str(2 * SENSORS),
    }
    taken = 0
    with (
        setup.serving(resolve("forecast-online"), **settings) as served,
        ThreadPoolExecutor(4) as pool,
    ):

        def piece(number: int) -> None:
            nonlocal taken
            for round in range(number * rounds_a_piece, (number + 1) * rounds_a_piece):
                firsts = range(0, sensors, TOGETHER)
                taken += sum(pool.map(lambda first, at=round: _post(served.port, _lines(at, first)), firsts))
            _run_out(served)

        pieces = rounds // rounds_a_piece
        wanted = pieces * rounds_a_piece * sensors
        yield from _watched(f"{wanted:,} readings", _allowed(scale), served, pieces, piece)
        ran = int(served.value("streamer_readings_run_total"))
    held = ran == taken == wanted
    yield AttackRow("endurance", "readings run, of those taken", f"{wanted:,}", f"{ran:,} of {taken:,}", held)


def _lines(round: int, first: int) -> bytes:
    """The body of one request in InfluxDB's line protocol, with times in seconds."""
    at = EPOCH + STEP * round
    names = [f"s{i}" for i in range(first, first + TOGETHER)]
    if first == 0:
        names[:PASSING] = (f"once{round}-{i}" for i in range(PASSING))
    return "\n".join(f"{name} value={(at // STEP + i) % 23} {at}" for i, name in enumerate(names)).encode()


def _post(port: int, content: bytes) -> int:
    """The number of accepted readings. A request refused for overload is sent again after Retry-After."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", "/write?precision=s", content)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 204:
                return TOGETHER
            if answer.status != 503:
                raise SystemExit(f"a request of readings was answered {answer.status}")
            time.sleep(float(answer.getheader("Retry-After") or 1))
        finally:
            connection.close()


def _run_out(served: setup.Served) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # the page may be late on a busy machine
            if not served.value("streamer_waiting_readings"):
                return
        time.sleep(0.05)
