"""What a client of rows does at the edges of its life: the end, leaving, a silent network, a stream that sleeps."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamer
from streamer.client import RowStream, StreamError, SyncRowStream
from tests.daemon.running import Proxy, Running, daemon
from tests.rows import row_model, some_rows


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return row_model(tmp_path_factory.mktemp("models"), chunk=4)


@pytest.fixture(scope="module")
def serving(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serving")
    with daemon(folder, plant, checkpoint_seconds=0.1, ping_seconds=0.1, max_batch=4) as running:
        yield running


def run(talk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(talk, 40))


def test_a_step_gives_the_outputs_of_its_own_rows(serving: Running, plant: Path) -> None:
    rows = some_rows(3, 12)["x"]
    whole = streamer.load(plant).stream().step(rows)["z"]

    async def talk() -> None:
        async with RowStream(serving.url) as stream:
            await stream.send(rows[:4])
            np.testing.assert_allclose((await stream.step(rows[4:8]))["z"], whole[4:8], rtol=1e-5, atol=1e-6)
            await stream.send(rows[8:10])
            np.testing.assert_allclose((await stream.step(rows[10:]))["z"], whole[8:], rtol=1e-5, atol=1e-6)

    run(talk())


def test_a_stream_of_gaps_takes_no_steps(serving: Running) -> None:
    async def talk() -> None:
        async with RowStream(serving.url, overflow="gap") as stream:
            with pytest.raises(ValueError, match="gap"):
                await stream.step(np.zeros((4, 3), np.float32))
            assert stream.position == 0

    run(talk())


def test_behind_the_end_nothing_waits_and_nothing_is_swallowed(serving: Running) -> None:
    rows = np.zeros((4, 3), np.float32)

    async def talk() -> None:
        async with RowStream(serving.url) as stream:
            await stream.send(rows)
            await stream.end()
            with pytest.raises(StreamError, match="ended"):
                await stream.send(rows)
            assert [event["type"] async for event in stream] == ["outputs", "end"]
            assert [event async for event in stream] == []
            for late in (stream.step(rows), stream.send(rows), stream.marker("m"), stream.end()):
                with pytest.raises(StreamError, match="ended"):
                    await late
            assert stream.position == 4

    run(talk())


def test_leaving_tells_what_went_wrong_once(serving: Running) -> None:
    async def talk() -> None:
        async def leave(then: Exception | None) -> None:
            async with RowStream(serving.url) as stream:
                await stream.marker("m" * 1000)
                if then is not None:
                    raise then

        with pytest.raises(StreamError, match="bad_frame"):
            await leave(None)
        with pytest.raises(ZeroDivisionError):
            await leave(ZeroDivisionError())
        async with RowStream(serving.url) as stream:
            await stream.marker("m" * 1000)
            with pytest.raises(StreamError, match="bad_frame"):
                await anext(aiter(stream))

    run(talk())


def test_leaving_a_daemon_that_takes_nothing_is_bounded_and_told(serving: Running) -> None:
    async def talk() -> None:
        async def leave(proxy: Proxy) -> None:
            async with RowStream(proxy.url, close_seconds=0.2) as stream:
                proxy.target = 9  # nobody is there
                proxy.cut()
                await stream.send(np.zeros((4, 3), np.float32))

        async with Proxy.to(serving.port) as proxy:
            with pytest.raises(StreamError, match="close_seconds"):
                await leave(proxy)

    run(talk())


@pytest.mark.long
@pytest.mark.parametrize("last", [b"\r\n\r\n", b'"id":"quiet"'], ids=["before ready", "later"])
def test_a_network_that_fell_silent_is_left(serving: Running, last: bytes) -> None:
    bounds: Any = {"hello_seconds": 1.0, "silence_seconds": 1.0, "first_delay": 0.01}

    async def talk() -> None:
        async with Proxy.to(serving.port, last=last) as proxy:
            only_the_first = asyncio.create_task(proxy.connections(1))
            only_the_first.add_done_callback(lambda _: setattr(proxy, "last", None))
            async with RowStream(proxy.url, **bounds) as stream:
                await stream.marker("quiet")
                assert (await anext(aiter(stream)))["id"] == "quiet"
                assert proxy.accepted >= 2
                assert len((await stream.step(np.zeros((4, 3), np.float32)))["z"]) == 4

    run(talk())


@pytest.mark.long
@pytest.mark.parametrize("key", [None, "hourly"])
def test_a_stream_that_was_put_to_sleep_goes_on_with_the_next_row(plant: Path, tmp_path: Path, key: str | None) -> None:
    rows = some_rows(5, 12)["x"]
    whole = streamer.load(plant).stream().step(rows)["z"]

    async def talk() -> None:
        with daemon(tmp_path, plant, checkpoint_seconds=0.1, idle_seconds=0.3) as running:
            async with RowStream(running.url, key=key) as stream:
                for number in range(3):
                    part = rows[4 * number : 4 * number + 4]
                    got = (await stream.step(part))["z"]
                    np.testing.assert_allclose(got, whole[4 * number : 4 * number + 4], rtol=1e-5, atol=1e-6)
                    await asyncio.to_thread(asleep, running, number + 1)
                assert stream.reconnects == 2  # it is woken by rows only

    def asleep(running: Running, count: int) -> None:
        while running.metrics().get('streamer_evictions_total{reason="idle_timeout"}', 0) < count:
            time.sleep(0.05)

    run(talk())


@pytest.mark.long
def test_a_row_may_cross_the_news_that_its_stream_sleeps(plant: Path, tmp_path: Path) -> None:
    """Rows at about the daemon's own pace of putting streams to sleep: before, amid and behind it."""
    steps = 80
    rows = some_rows(6, 4 * steps)["x"]

    async def talk() -> list[Any]:
        with daemon(tmp_path, plant, checkpoint_seconds=0.05, idle_seconds=0.05) as running:
            async with RowStream(running.url, key="crossing", first_delay=0.01) as stream:
                parts = []
                for number in range(steps):
                    parts.append((await stream.step(rows[4 * number : 4 * number + 4]))["z"])
                    await asyncio.sleep(0.04 + 0.08 * number / steps)
                assert stream.reconnects > 0
                return parts

    parts = asyncio.run(asyncio.wait_for(talk(), 60))
    whole = streamer.load(plant).stream().step(rows)["z"]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_a_stream_without_a_loop_ends_once_and_leaves_no_thread(serving: Running) -> None:
    rows = np.zeros((4, 3), np.float32)
    with SyncRowStream(serving.url) as stream:
        stream.send(rows)
        assert [event["type"] for event in stream.end()] == ["outputs", "end"]
        for late in (stream.end, lambda: stream.step(rows)):
            with pytest.raises(StreamError, match="ended"):
                late()
    with pytest.raises(StreamError, match="closed"):
        stream.step(rows)
    refused = SyncRowStream(serving.url, model="nobody")
    with pytest.raises(StreamError, match="unknown_model"):
        refused.__enter__()
    assert threads() == 0


def test_an_interrupt_gives_up_the_call_and_not_the_stream(serving: Running) -> None:
    with SyncRowStream(serving.url) as stream:
        caller = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        caller.start()
        with pytest.raises(KeyboardInterrupt):
            stream.safe(10**9)  # never
        caller.join()
        assert stream.step(np.zeros((4, 3), np.float32))["z"].shape == (4, 2)
        assert not waits_for_acknowledgements(stream)
    assert threads() == 0


def waits_for_acknowledgements(stream: SyncRowStream) -> bool:
    assert stream._loop is not None
    return any(
        "RowStream.safe" in str(task) or "ReplayClient.safe" in str(task) for task in asyncio.all_tasks(stream._loop)
    )


def threads() -> int:
    return sum(thread.name == "row-stream" for thread in threading.enumerate())
