"""Going down and coming back: the result is that of a daemon that never went."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from streamer.client import StreamClient
from tests.daemon.running import Proxy, Running, daemon
from tests.daemon.talk import RATE, expected, noise, opened, pieces, same, text, until_closed

TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    ("how", "when"),
    [
        (TERM, [0.3, 0.6]),
        (KILL, [0.2, 0.7]),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((KILL, [0.02]), (TERM, [0.0]), (TERM, [0.5]), (KILL, [0.5]), (KILL, [1.0]))
        ),
    ],
)
def test_restart_and_resume(toy: Path, tmp_path: Path, how: int, when: list[float]) -> None:
    """``when``: shares of the audio after which the daemon goes; the client just goes on."""
    pcm = noise(7, 12)
    parts = pieces(pcm, 3)
    stops = {round(share * (len(parts) - 1)) for share in when}

    async def talk(running: Running) -> tuple[str, list[int], Running]:
        codes = []
        async with Proxy.to(running.port) as proxy, StreamClient(proxy.url, sample_rate=RATE) as stream:
            for number, part in enumerate(parts):
                await stream.send(part)
                if number % 7 == 0:
                    await stream.marker(f"m{number}")
                if number in stops:
                    if number != min(stops):  # the second time there is a checkpoint to fall back to
                        async with asyncio.timeout(30):
                            await stream.safe(1)
                    codes.append(await asyncio.to_thread(running.stop, how))
                    running = await asyncio.to_thread(Running, tmp_path, toy, checkpoint_seconds=0.1)
                    proxy.target = running.port
            await stream.end()
            return text([event async for event in stream]), codes, running

    async def undisturbed(running: Running) -> str:
        async with StreamClient(running.url, sample_rate=RATE) as stream:
            for number, part in enumerate(parts):
                await stream.send(part)
                if number % 7 == 0:
                    await stream.marker(f"m{number}")
            await stream.end()
            return text([event async for event in stream])

    got, codes, last = asyncio.run(talk(Running(tmp_path, toy, checkpoint_seconds=0.1)))
    try:
        assert codes == [0 if how == TERM else -KILL] * len(stops)
        same(got, asyncio.run(undisturbed(last)))
    finally:
        last.stop(KILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_an_idle_daemon_goes_at_once(toy: Path, tmp_path: Path, number: int) -> None:
    with daemon(tmp_path, toy) as running:
        assert running.stop(number) == 0


def test_what_was_received_is_finished_before_it_goes(toy: Path, tmp_path: Path) -> None:
    """A client that only listens gets everything it had sent, then is told to come back."""
    pcm = noise(9, 20)

    async def talk(running: Running) -> list[dict]:
        async with opened(running.url) as (socket, _):
            for at in range(0, len(pcm), 16000):
                await socket.send(pcm[at : at + 16000])
            await socket.send('{"type":"marker","id":"all"}')
            first = []
            while not first or first[-1]["type"] not in ("partial", "final"):
                first.append(json.loads(await socket.recv()))
            running.process.send_signal(signal.SIGTERM)
            frames, code = await until_closed(socket)
            assert code == 1012
            return [e for e in first if e["type"] != "ack"] + frames

    with daemon(tmp_path, toy) as running:
        frames = asyncio.run(talk(running))
        assert running.process.wait(30) == 0
    assert frames[-1]["type"] == "restart"
    seen = [event for event in frames if "seq" in event and event["type"] != "marker"]
    assert text(seen) == text_of_prefix(expected(toy, pcm), len(seen))
    assert frames[-1]["position"] <= len(pcm) // 2


def text_of_prefix(whole: str, count: int) -> str:
    return "\n".join(whole.splitlines()[:count])


def test_a_second_signal_exits_at_once(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy) as running:
        # stopped, the process gets both signals before it can act on the first
        os.kill(running.process.pid, signal.SIGSTOP)
        os.kill(running.process.pid, signal.SIGTERM)
        os.kill(running.process.pid, signal.SIGINT)
        os.kill(running.process.pid, signal.SIGCONT)
        assert running.process.wait(30) in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_a_taken_port_is_one_clear_line(toy: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = Running(tmp_path, toy, wait=False, port=port)
        assert running.stop(0) == 69
    lines = running.errors.read_text().splitlines()
    assert len(lines) == 1
    assert f"can't listen on 127.0.0.1:{port}: address already in use" in lines[0].lower()


def test_a_model_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    running = Running(tmp_path / "run", broken, wait=False)
    assert running.stop(0) == 78
    assert "broken.onnx" in running.errors.read_text()
    assert "Traceback" not in running.errors.read_text()


def test_a_setting_that_is_none_is_one_clear_line(toy: Path, tmp_path: Path) -> None:
    running = Running(tmp_path, toy, wait=False, prot=1)
    assert running.stop(0) == 78
    assert "STREAMER_PROT in the environment: did you mean STREAMER_PORT?" in running.errors.read_text()
