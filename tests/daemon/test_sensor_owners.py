"""Two owners' sensors of one name: neither reads, writes, hears of or forgets the other's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect

from streamer.engine.catalogue import resolve
from tests.daemon.running import Answer, Running, daemon
from tests.daemon.talk import until_closed
from tests.daemon.tenants import bearer, give

MODEL = resolve("forecast-online")
START = 1_700_000_000


class Served(NamedTuple):
    running: Running
    alice: str
    bob: str
    writer: str
    reader: str
    admin: str

    def ask(self, name: str, method: str, path: str, body: bytes = b"") -> Answer:
        return self.running.ask(method, path, body, bearer(getattr(self, name)))

    def post(self, name: str, sensor: str, *values: float, query: str = "?forecast=1") -> Answer:
        lines = (f'{{"id":"{sensor}","time":{START + 60 * at},"value":{value}}}' for at, value in enumerate(values))
        return self.ask(name, "POST", f"/v1/readings{query}", "\n".join(lines).encode())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("owners")
    state = folder / "state"
    state.mkdir()
    secrets = {name: give(state, name, "read", "write") for name in ("alice", "bob")}
    secrets |= {"writer": give(state, "writer", "write"), "reader": give(state, "reader", "read", owner="writer")}
    secrets["admin"] = give(state, "admin", "admin")
    with daemon(folder, MODEL) as running:
        yield Served(running, **secrets)


def test_one_name_is_two_sensors(served: Served) -> None:
    mine = served.post("alice", "pump", 1, 2, 3)
    assert [json.loads(line)["stream"] for line in mine.text.splitlines()] == ["pump"] * 3
    assert len(served.post("bob", "pump", 100).text.splitlines()) == 1  # not late, nor a duplicate
    assert json.loads(served.ask("alice", "GET", "/v1/forecast/pump").text)["value"] == 3
    found = json.loads(served.ask("bob", "GET", "/v1/forecast/pump").text)
    assert (found["stream"], found["value"], found["scores"]["readings"]) == ("pump", 100, 1)
    served.post("alice", "secret", 1)
    assert "secret" in json.loads(served.ask("alice", "GET", "/v1/forecast").text)["streams"]
    for name in ("bob", "admin", "reader"):
        assert "secret" not in served.ask(name, "GET", "/v1/forecast").text
        assert served.ask(name, "GET", "/v1/forecast/secret").status == 404
        assert served.ask(name, "GET", "/v1/forecast/alice%1Fsecret").status == 404
    assert served.ask("bob", "DELETE", "/v1/forecast/secret").status == 404
    assert served.ask("bob", "DELETE", "/v1/forecast/alice%1Fsecret").status == 404
    assert served.ask("alice", "DELETE", "/v1/forecast/secret").status == 204


def test_tokens_of_one_owner_share(served: Served) -> None:
    """One that only writes, for a machine; one that only reads, for a screen."""
    assert served.post("writer", "shared", 5, query="").status == 200
    assert served.ask("writer", "GET", "/v1/forecast/shared").status == 403
    assert json.loads(served.ask("reader", "GET", "/v1/forecast/shared").text)["value"] == 5


def test_a_writer_gets_no_forecasts_back(served: Served) -> None:
    answer = served.post("writer", "blind", 1, 2)
    assert answer.status == 403
    assert json.loads(answer.text)["error"].endswith("?forecast=1 needs the scope read")
    assert "blind" not in served.ask("reader", "GET", "/v1/forecast").text  # nothing was taken
    for query in ("", "?forecast=0"):
        answer = served.post("writer", "blind", 1, 2, query=query)
        assert answer.status == 200
        assert "quantiles" not in answer.text
    assert served.ask("writer", "GET", "/v1/history/blind").status == 403
    assert 'streamer_denied_requests_total{reason="scope"}' in served.ask("admin", "GET", "/metrics").text


def test_a_sensor_in_brackets_is_found(served: Served) -> None:
    assert served.post("alice", "[a]", 1).status == 200
    for pattern in ("[[]a]", "%5B%5B%5Da%5D"):
        assert json.loads(served.ask("alice", "GET", f"/v1/forecast?match={pattern}").text)["streams"] == ["[a]"]


def test_a_writers_socket_gets_no_forecasts(served: Served) -> None:
    async def go() -> None:
        url = f"ws://127.0.0.1:{served.running.port}/v1/sensors"
        async with connect(url, additional_headers=bearer(served.writer), proxy=None) as socket:
            await socket.send(f'{{"id":"mute","time":{START},"value":1}}')
            assert set(json.loads(await socket.recv())) == {"type", "readings", "refused"}
            await socket.send('{"type":"subscribe","streams":["*"]}')
            said = json.loads(await socket.recv())
            assert (said["type"], said["code"]) == ("error", "scope")
            assert "read" in said["message"]

    asyncio.run(go())


@pytest.mark.parametrize("sensor", ["alice\\u001fpump", "alice\\u001f\\u001fpump"])
def test_nobody_writes_to_anothers_by_its_inner_name(served: Served, sensor: str) -> None:
    before = served.ask("alice", "GET", "/v1/forecast").text
    answer = served.post("bob", sensor, 7, query="")
    assert answer.status == 400
    assert "not a name" in answer.text
    line = b"m,a=alice\x1fpump value=7 1700000000000000000\n"
    assert served.ask("bob", "POST", "/write", line).status == 400
    assert served.ask("alice", "GET", "/v1/forecast").text == before


def test_the_metrics_page_has_only_ones_own(served: Served) -> None:
    served.post("alice", "private", 1)
    served.post("writer", "shared", 5, query="")

    def named(name: str) -> set[str]:
        return set(re.findall(r'streamer_forecast_reading\{stream="([^"]+)"', served.ask(name, "GET", "/metrics").text))

    assert "private" in named("alice")
    own = {"shared", "blind", "mute"}  # of the writer, whom the reader shares with
    assert named("reader") <= own
    assert {"alice/private", "writer/shared"} <= named("admin")
    top = re.findall(r'streamer_anomaly_top\{stream="([^"]+)"', served.ask("reader", "GET", "/metrics").text)
    assert set(top) <= own


def test_nobody_hears_of_anothers(served: Served) -> None:
    url = f"ws://127.0.0.1:{served.running.port}/v1/sensors"

    async def subscribed(secret: str) -> ClientConnection:
        socket = await connect(url, additional_headers=bearer(secret), proxy=None)
        await socket.send('{"type":"subscribe","streams":["*"]}')
        assert json.loads(await socket.recv())["type"] == "subscribed"
        return socket

    async def go() -> None:
        mine, other = await subscribed(served.alice), await subscribed(served.bob)
        try:
            await asyncio.to_thread(served.post, "alice", "heard", 1.0)
            await asyncio.to_thread(served.post, "bob", "last", 2.0)
            async with asyncio.timeout(30):
                assert json.loads(await mine.recv())["stream"] == "heard"
                assert json.loads(await other.recv())["stream"] == "last"
        finally:
            await mine.close()
            await other.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "frame", "needs"),
    [
        ("writer", '{"type":"subscribe","streams":["*"]}', "read"),
        ("reader", '{"id":"a","time":1,"value":1}', "write"),
    ],
)
def test_each_frame_of_a_websocket_has_its_scope(served: Served, name: str, frame: str, needs: str) -> None:
    async def go() -> None:
        url = f"ws://127.0.0.1:{served.running.port}/v1/sensors"
        async with connect(url, additional_headers=bearer(getattr(served, name)), proxy=None) as socket:
            await socket.send(frame)
            frames, code = await until_closed(socket)
        assert (frames[-1]["code"], code) == ("scope", 1008)
        assert frames[-1]["message"].endswith(f"it needs the scope {needs}")

    asyncio.run(go())


@pytest.mark.long
def test_they_are_there_after_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    secrets = {name: give(state, name, "read", "write") for name in ("alice", "bob", "writer", "reader", "admin")}
    for value in (1.0, 2.0):
        with daemon(tmp_path, MODEL) as running:
            served = Served(running, **secrets)
            if value == 1.0:
                served.post("alice", "pump", value)
            found = json.loads(served.ask("alice", "GET", "/v1/forecast/pump").text)
            assert (found["stream"], found["value"]) == ("pump", 1.0)
            assert served.ask("bob", "GET", "/v1/forecast/pump").status == 404
            assert running.stop() == 0
