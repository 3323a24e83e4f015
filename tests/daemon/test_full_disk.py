"""A disk that is full, at the start and later: the daemon lives, says so, refuses what it can't keep, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.attack.small_disk import SmallDisk, small_disk
from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon
from tests.daemon.talk import dial, expected, noise, opened, text, transcribe
from tests.daemon.test_sensors import ndjson, post

FORECASTER = resolve("forecast-online")
QUICK = {"checkpoint_seconds": 0.05, "min_free_bytes": 0}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(small_disk(tmp_path))
        except PermissionError as error:
            pytest.skip(str(error))
        yield found


def until(call: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := call():
                return found
        time.sleep(0.01)
    raise AssertionError(what)


def ready(running: Running) -> bool:
    return running.get("/readyz")[0] == 200


async def refusal(running: Running) -> dict[str, Any]:
    async with opened(running.url) as (_, answer):
        return answer


def test_a_full_disk_at_the_start_and_room_later(disk: SmallDisk, toy: Path, tmp_path: Path) -> None:
    """The unit is started, says what is wrong on every way in, and goes on by itself once there is room; what slept on
    the disk is there again."""
    state, pcm = disk.path / "state", noise(3, 2)

    async def begin(running: Running) -> str:
        async with opened(running.url) as (socket, answer):
            await socket.send(pcm[:8000])
            async with asyncio.timeout(30):
                while json.loads(await socket.recv())["type"] != "ack":
                    pass
            return str(answer["stream"])

    async def resume(running: Running, stream: str) -> dict[str, Any]:
        async with dial(running.url) as socket:
            await socket.send(json.dumps({"type": "resume", "stream": stream}))
            return dict(json.loads(await socket.recv()))

    reading = ndjson([("a", 1.0, 1.0)])
    with daemon(tmp_path / "one", toy, FORECASTER, state_directory=state, **QUICK) as running:
        stream = asyncio.run(begin(running))
        assert post(running, "/v1/readings", reading)[0] == 200
        running.stop(signal.SIGKILL)
    for index in state.glob("*-shm"):
        index.unlink()  # as after a stop of the machine; else the store can be read, and only not be written
    disk.fill()
    with daemon(tmp_path / "two", toy, FORECASTER, state_directory=state, **QUICK) as running:
        status, page = running.get("/readyz")
        assert status == 503
        assert "full" in page
        assert running.get("/healthz")[0] == 200
        answer = asyncio.run(refusal(running))
        assert (answer["type"], answer["code"]) == ("error", "store")
        assert asyncio.run(resume(running, stream))["code"] == "store"
        assert post(running, "/v1/readings", reading)[0] in (503, 507)
        metrics = running.metrics()
        assert metrics['streamer_disk_trouble{store="sessions"}'] == 1
        disk.empty()
        until(lambda: ready(running), "it never got ready again")
        assert asyncio.run(resume(running, stream))["type"] == "ready"
        assert text(asyncio.run(transcribe(running.url, [pcm]))) == expected(toy, pcm)
        status, body, _ = post(running, "/v1/readings", reading)
        assert json.loads(body)["duplicate"] == 1, "what was taken before the kill is there"
        assert running.metrics()['streamer_disk_trouble{store="sensors"}'] == 0
        assert running.stop() == 0


def test_a_disk_that_fills_under_a_running_daemon(disk: SmallDisk, toy: Path, tmp_path: Path) -> None:
    """Streams go on without acknowledgements, new ones and readings are refused, nothing is lost, and it recovers."""
    pcm, reading = noise(4, 3), ndjson([("a", 1.0, 1.0)])

    async def talk(running: Running) -> None:
        async with opened(running.url) as (socket, _):
            disk.fill()
            await socket.send(pcm)
            await asyncio.to_thread(until, lambda: not ready(running), "it says that it is ready")
            async with asyncio.timeout(60):
                # a store whose write failed gives back the room of its log, and goes on until that is full, too
                while (await refusal(running)).get("code") != "store":
                    disk.fill()
                while (answer := await asyncio.to_thread(post, running, "/v1/readings", reading))[0] == 200:
                    disk.fill()
            assert (answer[0], "full" in answer[1]) == (507, True)
            disk.empty()
            async with asyncio.timeout(60):
                while json.loads(await socket.recv()) != {"type": "ack", "position": len(pcm) // 2}:
                    pass
        await asyncio.to_thread(until, lambda: ready(running), "it never got ready again")
        assert (await refusal(running))["type"] == "ready"

    with daemon(tmp_path / "one", toy, FORECASTER, state_directory=disk.path / "state", **QUICK) as running:
        asyncio.run(talk(running))
        assert post(running, "/v1/readings", reading)[0] == 200


@pytest.mark.long
def test_whoever_wants_text_without_a_disk_gets_it(disk: SmallDisk, toy: Path, tmp_path: Path) -> None:
    pcm = noise(5, 2)
    disk.fill()
    with daemon(tmp_path / "one", toy, state_directory=disk.path / "state", unsaved_streams="true", **QUICK) as running:
        status, page = running.get("/readyz")
        assert status == 200
        assert "nothing is saved" in page
        assert text(asyncio.run(transcribe(running.url, [pcm]))) == expected(toy, pcm)
        assert running.stop() == 0


def test_little_room_is_said_before_it_is_none(disk: SmallDisk, toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path / "one", toy, state_directory=disk.path / "state", min_free_bytes=2**30) as running:
        status, page = running.get("/readyz")
        assert status == 503
        assert "min_free_bytes" in page


def test_a_state_directory_that_is_deleted_is_noticed_and_said(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, FORECASTER, checkpoint_seconds=0.05) as running:
        assert ready(running)
        shutil.rmtree(tmp_path / "state")
        until(lambda: not ready(running), "it says that it is ready")
        assert "deleted" in running.get("/readyz")[1]
        assert post(running, "/v1/readings", ndjson([("a", 1.0, 1.0)]))[0] == 503
        assert asyncio.run(refusal(running))["code"] == "store"


def test_a_place_that_is_none_is_still_refused_at_the_start(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    running = Running(tmp_path, toy, wait=False, state_directory=tmp_path / "file" / "state")
    try:
        assert running.process.wait(60) == 73
    finally:
        running.stop(signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_second_signal_while_nothing_can_be_saved_ends_it_at_once(
    disk: SmallDisk, toy: Path, tmp_path: Path, number: int
) -> None:
    """The drain waits for a stream whose buffer is full of what nobody runs: the lane is stopped with the process."""
    pcm = noise(6, 60)

    async def talk(running: Running) -> int:
        async with opened(running.url) as (socket, _):
            await socket.send(pcm)
            disk.fill()
            running.process.send_signal(number)
            running.process.send_signal(number)
            return await asyncio.to_thread(running.process.wait, 60)

    with daemon(tmp_path / "one", toy, state_directory=disk.path / "state", **QUICK) as running:
        assert asyncio.run(talk(running)) in (0, 128 + number)  # 0: it was done before the second came
