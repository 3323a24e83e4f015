"""Two daemons: what moves from one to the other goes on as if it had never moved, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.attack.gaps import differences
from streamer.client import RowStream, StreamClient
from streamer.engine.catalogue import resolve
from streamer.serve.moving.peer import Peer
from streamer.serve.moving.routes import ROUTES
from tests.daemon.running import Running, daemon
from tests.daemon.talk import RATE, expected, noise, opened, pieces, same, text, until_closed
from tests.rows import row_model, some_rows
from tests.toys import toy_model

KILL, EPOCH = signal.SIGKILL, 1_767_225_600


@pytest.fixture
def two(toy: Path, tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    with (
        daemon(tmp_path / "a", toy, checkpoint_seconds=0.1) as one,
        daemon(tmp_path / "b", toy, checkpoint_seconds=0.1) as other,
    ):
        yield one, other


def ask(running: Running, method: str, path: str, body: Any = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body).encode() if isinstance(body, dict) else body)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def address(running: Running) -> str:
    return f"http://127.0.0.1:{running.port}"


def drained(one: Running, other: Running) -> dict[str, Any]:
    status, said, _ = ask(one, "POST", "/v1/drain", {"to": address(other)})
    assert status == 200, said
    return json.loads(said)  # type: ignore[no-any-return]


async def listed(running: Running) -> list[dict[str, Any]]:
    return json.loads((await asyncio.to_thread(running.get, "/v1/sessions"))[1])["sessions"]  # type: ignore[no-any-return]


def test_every_route_says_who_may() -> None:
    assert {route.scope for route in ROUTES} == {"admin"}
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_sound_moves_there_and_back(two: tuple[Running, Running], toy: Path) -> None:
    one, other = two
    pcm = noise(7, 12)
    parts = pieces(pcm, 3)
    third = len(parts) // 3

    async def talk() -> str:
        async with StreamClient(one.url, sample_rate=RATE) as stream:
            for number, part in enumerate(parts):
                await stream.send(part)
                if number == third:
                    assert (await asyncio.to_thread(drained, one, other))["streams"] == {"moved": 1, "left": {}}
                if number == 2 * third:
                    async with asyncio.timeout(30):
                        while [found["state"] for found in await listed(other)] != ["attached"]:
                            pass
                    assert (await asyncio.to_thread(drained, other, one))["streams"]["moved"] == 1
            await stream.end()
            events = [event async for event in stream]
            assert stream.reconnects >= 2
            return text(events)

    same(asyncio.run(talk()), expected(toy, pcm))


@pytest.mark.long
def test_a_new_stream_is_sent_on_and_an_old_id_too(two: tuple[Running, Running]) -> None:
    one, other = two

    async def talk() -> None:
        async with opened(one.url) as (socket, ready):
            assert (await asyncio.to_thread(drained, one, other))["streams"]["moved"] == 1
            frames, code = await until_closed(socket)
            assert (frames[-1]["code"], frames[-1]["url"], code) == ("moved", address(other), 4301)
        async with StreamClient(one.url, sample_rate=RATE) as fresh:
            assert fresh.url == other.url
            assert fresh.id in {found["stream"] for found in await listed(other)}
        status, said, _ = await asyncio.to_thread(ask, one, "GET", f"/v1/sessions/{ready['stream']}")
        assert (status, address(other) in said.decode()) == (409, True)

    asyncio.run(talk())
    assert one.get("/readyz")[0] == 503
    assert other.get("/readyz")[0] == 200
    assert one.metrics()['streamer_moved_total{kind="streams",way="out"}'] == 1
    assert other.metrics()['streamer_moved_total{kind="streams",way="in"}'] == 1


@pytest.mark.long
def test_a_stream_as_bytes(two: tuple[Running, Running], toy: Path, tmp_path: Path) -> None:
    one, other = two
    pcm = noise(3, 4)

    async def talk() -> tuple[str, bytes]:
        async with StreamClient(one.url, sample_rate=RATE) as stream:
            await stream.send(pcm[: len(pcm) // 2])
            await stream.safe()
            assert stream.id is not None
            status, data, _ = await asyncio.to_thread(ask, one, "GET", f"/v1/sessions/{stream.id}")
            assert status == 200
            assert (await asyncio.to_thread(ask, one, "POST", f"/v1/sessions/{stream.id}/evict"))[0] == 204
            (asleep,) = await listed(one)
            assert (asleep["state"], asleep["position"]) == ("asleep", len(pcm) // 4)
            await stream.send(pcm[len(pcm) // 2 :])  # which wakes it
            await stream.end()
            events = [event async for event in stream]
            return stream.id, data, text(events)  # type: ignore[return-value]

    id, data, got = asyncio.run(talk())  # type: ignore[misc]
    same(got, expected(toy, pcm))
    assert ask(other, "PUT", "/v1/sessions/another", data)[0] == 409
    assert ask(other, "PUT", f"/v1/sessions/{id}", data[:-1] + b"x")[0] == 409
    status, said, _ = ask(other, "PUT", f"/v1/sessions/{id}", data)
    assert (status, json.loads(said)["position"]) == (201, len(pcm) // 4)
    assert ask(other, "PUT", f"/v1/sessions/{id}", data)[0] == 201  # said twice it is there once
    assert ask(other, "POST", f"/v1/sessions/{id}/evict")[0] == 409
    assert ask(other, "POST", "/v1/sessions/nobody/evict")[0] == 404
    assert ask(other, "GET", "/v1/sessions/nobody")[0] == 404
    with daemon(tmp_path / "c", toy_model(tmp_path, hidden=6)) as third:
        status, said, _ = ask(third, "PUT", f"/v1/sessions/{id}", data)
        assert (status, b"another file" in said) == (409, True)


@pytest.mark.parametrize("victim", ["source", pytest.param("target", marks=pytest.mark.long)])
def test_a_kill_amid_the_move_loses_nothing(toy: Path, tmp_path: Path, victim: str) -> None:
    pcm = noise(11, 6)
    parts = pieces(pcm, 5)
    folders, options = [tmp_path / "a", tmp_path / "b"], {"checkpoint_seconds": 0.1}
    running = [Running(folder, toy, **options) for folder in folders]

    async def talk() -> str:
        async with StreamClient(running[0].url, sample_rate=RATE, retry_seconds=60) as stream:
            for part in parts[: len(parts) // 2]:
                await stream.send(part)
            await stream.safe(1)
            moving = threading.Thread(target=_ignoring, args=(running[0], running[1]))
            moving.start()
            at = 0 if victim == "source" else 1
            port = running[at].port
            await asyncio.to_thread(running[at].stop, KILL)
            running[at] = await asyncio.to_thread(Running, folders[at], toy, port=port, **options)
            moving.join()
            await asyncio.to_thread(drained, running[0], running[1])
            for part in parts[len(parts) // 2 :]:
                await stream.send(part)
            await stream.end()
            events = [event async for event in stream]
            assert stream.url == running[1].url
            return text(events)

    try:
        same(asyncio.run(talk()), expected(toy, pcm))
    finally:
        for one in running:
            one.stop(KILL)


def _ignoring(one: Running, other: Running) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(one, "POST", "/v1/drain", {"to": address(other)})


@pytest.mark.long
def test_rows_move_by_socket_and_by_request(tmp_path: Path) -> None:
    model = row_model(tmp_path / "plant.onnx")
    rows = some_rows(1, 60)
    with daemon(tmp_path / "a", model) as one, daemon(tmp_path / "b", model) as other:

        async def talk(url: str, move: bool) -> Any:
            options = {"tensors": True} if move else {}
            async with RowStream(url, key="line" if move else "still", options=options) as stream:
                await stream.send(rows["x"][:30])
                if move:
                    await asyncio.to_thread(drained, one, other)
                await stream.send(rows["x"][30:])
                await stream.end()
                found = [event["outputs"]["z"] async for event in stream if event["type"] == "outputs"]
                return np.concatenate(found)

        moved, still = asyncio.run(talk(one.url, True)), asyncio.run(talk(other.url, False))
        np.testing.assert_allclose(moved, still, rtol=1e-5)
        body = json.dumps({"values": rows["x"][:3].tolist()}).encode()
        there = f"{address(other)}/v1/streams/asked"
        status, _, headers = ask(one, "POST", "/v1/streams/asked", body)
        assert (status, headers["location"]) == (308, there)
        assert ask(other, "POST", "/v1/streams/asked", body)[0] == 200
        assert ask(one, "DELETE", "/v1/drain")[0] == 204
        assert drained(other, one)["streams"]["moved"] == 1
        status, _, headers = ask(other, "POST", "/v1/streams/asked", body)
        assert (status, headers["location"]) == (308, f"{address(one)}/v1/streams/asked")
        assert json.loads(ask(one, "POST", "/v1/streams/asked", body)[1])["position"] == 6


def readings(names: list[str], first: int, last: int) -> bytes:
    lines = [
        {"stream": name, "time": EPOCH + 3600 * hour, "value": float(np.sin(hour / 4 + at))}
        for hour in range(first, last)
        for at, name in enumerate(names)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.mark.long
@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.long), True])
def test_sensors_move_with_all_they_have_learnt(tmp_path: Path, killed: bool) -> None:
    model, names = resolve("forecast-online"), ["a", "b/c", "d e"]
    with (
        daemon(tmp_path / "a", model) as one,
        daemon(tmp_path / "b", model) as other,
        daemon(tmp_path / "c", model) as still,
    ):
        for running in (one, still):
            assert ask(running, "POST", "/v1/readings", readings(names, 0, 12))[0] == 200
        assert drained(one, other)["sensors"] == {"moved": 3, "left": {}}
        if killed:
            port = other.port
            other.stop(KILL)
            other = Running(tmp_path / "b", model, port=port)
        try:
            status, _, headers = ask(one, "POST", "/v1/readings?forecast=1", readings(names, 12, 20))
            assert (status, headers["location"]) == (307, f"{address(other)}/v1/readings?forecast=1")
            for running in (other, still):
                assert ask(running, "POST", "/v1/readings", readings(names, 12, 20))[0] == 200
            for name in names:
                path = f"/v1/forecast/{name.replace(' ', '%20')}"
                found, expected_one = (json.loads(running.get(path)[1]) for running in (other, still))
                assert differences(found, expected_one) == []
            assert drained(other, one)["sensors"]["moved"] == 3
            assert ask(one, "POST", "/v1/readings", readings(names, 20, 21))[0] == 200
        finally:
            other.stop(KILL)


@pytest.mark.long
def test_a_sensor_that_can_not_come_stays(tmp_path: Path) -> None:
    model, universal = resolve("forecast-online"), resolve("forecast-universal")
    with daemon(tmp_path / "a", model) as one, daemon(tmp_path / "b", universal) as other:
        assert ask(one, "POST", "/v1/readings", readings(["a"], 0, 3))[0] == 200
        said = drained(one, other)["sensors"]
        assert said["moved"] == 0
        assert "no model" in said["left"]["a"]
        assert ask(one, "POST", "/v1/readings", readings(["a"], 3, 4))[0] == 200


@pytest.mark.long
def test_where_nobody_answers_nothing_moves(two: tuple[Running, Running]) -> None:
    one, other = two
    target = address(other)
    other.stop(KILL)
    status, said, _ = ask(one, "POST", "/v1/drain", {"to": target})
    assert (status, b"can't be reached" in said) == (502, True)
    assert ask(one, "POST", "/v1/drain", b"what")[0] == 400
    assert one.get("/readyz")[0] == 200


@pytest.mark.long
def test_commands(two: tuple[Running, Running], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from typer.testing import CliRunner

    from streamer.cli import app

    one, other = two
    run = CliRunner().invoke

    async def talk() -> str:
        async with StreamClient(one.url, sample_rate=RATE) as stream:
            await stream.send(noise(1, 1))
            await stream.safe()
            assert stream.id is not None
            return stream.id

    id = asyncio.run(talk())
    url, file = ["--url", address(one)], tmp_path / "stream"
    assert id in run(app, ["sessions", "list", *url]).output
    assert run(app, ["sessions", "export", id, "-o", str(file), *url]).exit_code == 0
    assert run(app, ["sessions", "import", id, str(file), "--url", address(other)]).exit_code == 0
    found = json.loads(run(app, ["sessions", "list", "--json", "--url", address(other)]).output)
    assert (found["stream"], found["state"]) == (id, "asleep")
    assert run(app, ["sessions", "evict", id, *url]).exit_code == 0
    assert "moved" in run(app, ["drain", "--to", address(other), *url]).output
    done = run(app, ["reload", *url])
    assert (done.exit_code, "unchanged" in done.output) == (0, True)


def test_peers_are_named_whole() -> None:
    from streamer.streams.moving import PeerError

    for bad in ("there", "http://", "http://a/b", "ftp://a"):
        with pytest.raises(PeerError, match="address of a daemon"):
            Peer(bad)
    assert Peer("ws://a:1/").url == "http://a:1"
