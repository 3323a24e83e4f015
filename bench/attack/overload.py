"""More live streams than the machine can run: admitted streams keep up, the others are refused with a reason.

Clients first connect one after the other until one is refused: this gives the number that fits. Then half as many more
connect, and twice as many more, a hundred a second; refused ones try again after ``retry_after``. Admitted clients send
in real time and measure the time from the last sample of a chunk to the marker after it. Then all but the first clients
leave; as many connect in one instant, from another process, so that they do not delay the clients that measure; at
last clients send files during live streams. Clients and daemon share the machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import uvloop

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.clients import LiveClient, percentile
from bench.attack.floods import Flood, frame_of_rows

__all__ = ["GUARDED", "overloaded", "run"]

#: The daemon's defaults for admission, which other benches turn off.
GUARDED = {"STREAMER_MAX_LOAD": "0.7", "STREAMER_OVERLOAD_SECONDS": "0"}
#: New clients a second, and at most, until one is refused; surplus clients a second; seconds of each overload.
ARRIVALS, MOST, SURPLUS_ARRIVALS, SECONDS = 20, 600, 100, 12.0
#: Files that are sent during live streams.
FILES = 8
#: Clients that come in one instant, at least.
STORM = 1000
#: Numbers of clients, as multiples of the number that fits.
OFFERED = (1.5, 3.0)
#: The most seconds from the end of the overload until results are in time again.
RECOVERY = 5.0


@dataclass
class Crowd:
    """Clients of the daemon at ``port``. ``chunk``: its seconds. ``reasons``: numbers of refusals by reason."""

    port: int
    chunk: float
    rate: int
    sounds: list[list[bytes]]
    clients: list[LiveClient] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    unkind: int = 0  # refused without retry_after

    @classmethod
    def of(cls, port: int) -> Crowd:
        info = json.loads(setup.get(port, "/v1/models"))["models"][0]
        rate, chunk = info["sample_rate"], info["chunk_seconds"]
        size = 2 * round(rate * chunk)
        sounds = [setup.sound(rate, 20, seed).tobytes() for seed in range(8)]
        pieces = [[data[at : at + size] for at in range(0, len(data) - size, size)] for data in sounds]
        return cls(port, chunk, rate, pieces)

    async def come(self, number: int) -> LiveClient:
        """Connect one client, which is admitted or refused."""

        def make() -> LiveClient:
            return LiveClient(self.sounds[number % len(self.sounds)], self.chunk, sample_rate=self.rate)

        _, client = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", self.port)
        await client.answered.wait()
        if client.ready:
            self.clients.append(client)
            return client
        refused = client.refused or {"code": f"HTTP {client.status}"}
        self.reasons[refused["code"]] += 1
        self.unkind += "retry_after" not in refused
        client.leave()
        return client

    async def insist(self, number: int, after: float = 0.0) -> None:
        """Connect a client ``after`` some seconds, until it is admitted; it tries again after ``retry_after``."""
        await asyncio.sleep(after)
        client = await self.come(number)
        while not client.ready:
            await asyncio.sleep((client.refused or {}).get("retry_after", 1.0))
            client = await self.come(number)

    async def fill(self, most: int) -> None:
        """Connect clients one after the other, until one is refused."""
        for number in range(most):
            if not (await self.come(number)).ready:
                break
            await asyncio.sleep(1 / ARRIVALS)

    def late(self, begin: float, end: float) -> list[float]:
        return [lag for client in self.clients for lag in client.late(begin, end)]

    async def leave(self, most: int = 0) -> None:
        """Disconnect all but the first ``most``."""
        gone, self.clients = self.clients[most:], self.clients[:most]
        for client in gone:
            client.leave()
        await asyncio.gather(*(client.over.wait() for client in gone))


def run(scale: Scale) -> Iterator[AttackRow]:
    with setup.model_path(None) as path, setup.serving(path, **GUARDED) as daemon:
        yield from overloaded(daemon, scale)


def overloaded(daemon: setup.Served, scale: Scale) -> list[AttackRow]:
    return uvloop.run(_attack(Crowd.of(daemon.port), daemon, scale))


async def _attack(crowd: Crowd, daemon: setup.Served, scale: Scale) -> list[AttackRow]:
    loop, seconds, rows = asyncio.get_running_loop(), max(0.5, SECONDS * scale.share), list[AttackRow]()
    await crowd.fill(max(4, round(MOST * scale.share)))
    fits = len(crowd.clients)

    async def measured(what: str, begin: float, count: int) -> None:
        end = loop.time() - crowd.chunk
        await asyncio.sleep(2 * crowd.chunk)
        lags = crowd.late(begin, end)
        text = f"{percentile(lags, 0.99):.3f} s (p50 {percentile(lags, 0.5):.3f}, {count} streams, {len(lags)} chunks)"
        held = percentile(lags, 0.99) <= crowd.chunk
        rows.append(AttackRow("overload", f"p99 of live streams {what}", f"a chunk: {crowd.chunk:g} s", text, held))

    begin = loop.time()
    await asyncio.sleep(seconds / 2)
    await measured("as many as fit", begin, fits)
    for times in OFFERED:
        crowd.reasons.clear()
        crowd.unkind = 0
        surplus = range(round(fits * times) - len(crowd.clients))
        more = [asyncio.create_task(crowd.insist(i, i / SURPLUS_ARRIVALS)) for i in surplus]
        begin = loop.time()
        await asyncio.sleep(seconds)
        await measured(f"at {times:g} times that", begin, len(crowd.clients))
        for task in more:
            task.cancel()
        await asyncio.gather(*more, return_exceptions=True)
        refused = crowd.reasons.total()
        text = ", ".join(f"{code} {count}" for code, count in sorted(crowd.reasons.items())) or "none was refused"
        held = crowd.unkind == 0 and set(crowd.reasons) <= {"overload", "capacity"} and refused > 0
        rows.append(
            AttackRow("overload", f"refused at {times:g} times that", "with a reason, and when to return", text, held)
        )
    begin = loop.time()
    await crowd.leave(fits)
    rows.append(await _recovery(crowd, begin, "once the others have left"))
    count = max(round(STORM * scale.share), round(fits * OFFERED[-1]) - fits)
    async with _storm(crowd.port, count):
        rows.append(await _recovery(crowd, loop.time(), f"while {count} come in one instant"))
    await crowd.leave(fits // 2)
    rows += await _files(crowd, daemon, seconds, max(1, round(FILES * min(1.0, scale.share))))
    await crowd.leave()
    return rows


@contextlib.asynccontextmanager
async def _storm(port: int, count: int) -> AsyncIterator[None]:
    """``count`` clients that connect from another process in one instant, and insist until the end of the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_storming, args=(port, count, theirs))
    process.start()
    theirs.close()
    try:
        await asyncio.to_thread(ours.recv)  # its imports are done
        ours.send(None)
        yield
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


def _storming(port: int, count: int, orders: Connection) -> None:
    async def storm() -> None:
        crowd = Crowd.of(port)
        orders.send(None)
        await asyncio.to_thread(orders.recv)
        clients = [asyncio.create_task(crowd.insist(number)) for number in range(count)]
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(orders.recv)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await crowd.leave()

    uvloop.run(storm())


async def _recovery(crowd: Crowd, begin: float, what: str) -> AttackRow:
    """The time from ``begin`` until the chunks of a second, waiting ones included, are in time."""
    loop, worst = asyncio.get_running_loop(), 0.0
    while True:
        await asyncio.sleep(1)
        now = loop.time()
        late = percentile(crowd.late(now - 1 - crowd.chunk, now - crowd.chunk), 0.99)
        worst = max(worst, late)
        if late <= crowd.chunk or now - begin > 10 * RECOVERY:
            break
    text = f"{now - begin:.0f} s (p99 {late:.3f} s, {worst:.3f} s in the worst second)"
    return AttackRow("overload", f"in time again {what}", f"{RECOVERY:g} s", text, now - begin <= RECOVERY)


async def _files(crowd: Crowd, daemon: setup.Served, seconds: float, count: int) -> list[AttackRow]:
    """Clients that send as fast as they may, during live streams."""
    loop, live = asyncio.get_running_loop(), len(crowd.clients)
    data = frame_of_rows(b"".join(crowd.sounds[0]))
    files: list[Flood] = []
    until = loop.time() + 10 * RECOVERY
    while len(files) < count and loop.time() < until:
        make = functools.partial(Flood, lambda count: data, crowd.rate)
        _, file = await loop.create_connection(make, "127.0.0.1", crowd.port)
        await file.answered.wait()
        if file.ready:
            files.append(file)
        else:
            file.transport.abort()
            await asyncio.sleep(1)
    begin, ran = loop.time(), await asyncio.to_thread(daemon.value, "streamer_audio_seconds_total")
    await asyncio.sleep(seconds)
    passed = loop.time() - begin
    ran = await asyncio.to_thread(daemon.value, "streamer_audio_seconds_total") - ran
    lags = crowd.late(begin, loop.time() - crowd.chunk)
    text = f"{percentile(lags, 0.99):.3f} s ({live} streams, {len(lags)} chunks)"
    held = percentile(lags, 0.99) <= crowd.chunk
    for client in files:
        client.transport.abort()
    speed = (ran / passed - live) / max(1, len(files))
    return [
        AttackRow(
            "overload", f"p99 of live streams beside {len(files)} files", f"a chunk: {crowd.chunk:g} s", text, held
        ),
        AttackRow(
            "overload", "files get what is left", "more than real time", f"{speed:.1f} times real time", speed > 1
        ),
    ]
