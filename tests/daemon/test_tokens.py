"""Tokens, over every way in: who has none, a wrong one, one of another scope or owner, one that is removed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from streamer.client import StreamClient, StreamError, SyncRowStream
from streamer.serve.access.tokens import TokenFile, new_secret
from streamer.serve.moving.peer import Peer, PeerError
from tests.daemon.running import Answer, Running, daemon
from tests.daemon.talk import RATE, noise, until_closed
from tests.daemon.tenants import bearer, give, until
from tests.serve.kserve.plant import plant

ROWS = b"[[1,2,3],[4,5,6]]"
JSON = {"Content-Type": "application/json"}


class Served(NamedTuple):
    running: Running
    state: Path
    alice: str
    bob: str
    reader: str
    writer: str
    admin: str


@pytest.fixture(scope="module")
def served(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tokens")
    state = folder / "state"
    state.mkdir()
    names = {"alice": "stream", "bob": "stream", "reader": "read", "writer": "write", "admin": "admin"}
    secrets = {name: give(state, name, scope) for name, scope in names.items()}
    with daemon(folder, toy, plant(folder), checkpoint_seconds=0.2, max_failed_tokens=1000) as running:
        yield Served(running, state, **secrets)


def rows(served: Served, secret: str, key: str, query: str = "?model=plant", body: bytes = ROWS) -> Answer:
    return served.running.ask("POST", f"/v1/streams/{key}{query}", body, JSON | bearer(secret))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/ping", "/v2/health/live", "/v2/health/ready"])
def test_probes_need_no_token(served: Served, path: str) -> None:
    assert served.running.ask("GET", path).status in (200, 204)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/streams/a?model=plant"),
        ("GET", "/v1/streams/a"),
        ("DELETE", "/v1/streams/a"),
        ("POST", "/v1/generate"),
        ("POST", "/v1/readings"),
        ("POST", "/write"),
        ("GET", "/v1/forecast"),
        ("POST", "/v2/models/plant/infer"),
        ("GET", "/v2"),
        ("GET", "/v1/sessions"),
        ("GET", "/what/nobody/wrote"),
        ("GET", "/v1/stream"),
    ],
)
def test_everything_else_does(served: Served, method: str, path: str) -> None:
    none = served.running.ask(method, path, ROWS)
    assert (none.status, none.headers["www-authenticate"]) == (401, "Bearer")
    assert "a token is needed" in none.text
    wrong = served.running.ask(method, path, ROWS, bearer(new_secret()))
    assert (wrong.status, "not known here" in wrong.text) == (401, True)


@pytest.mark.parametrize(
    ("name", "method", "path", "status"),
    [
        ("alice", "GET", "/v1/models", 200),
        ("alice", "GET", "/metrics", 403),
        ("alice", "POST", "/v1/readings", 403),
        ("alice", "GET", "/v1/sessions", 403),
        ("reader", "GET", "/metrics", 200),
        ("reader", "GET", "/v1/models", 200),
        ("reader", "POST", "/v1/streams/a?model=plant", 403),
        ("reader", "POST", "/v1/readings", 403),
        ("reader", "POST", "/v2/models/plant/infer", 403),
        ("reader", "GET", "/v2/models/plant", 200),
        ("reader", "DELETE", "/v1/forecast/pump", 403),
        ("writer", "GET", "/metrics", 403),
        ("writer", "GET", "/v1/forecast", 403),
        ("writer", "POST", "/v1/readings", 404),  # no model for sensors is served
        ("admin", "GET", "/metrics", 200),
        ("admin", "POST", "/v1/readings", 404),
        ("admin", "GET", "/what/nobody/wrote", 404),
        ("alice", "GET", "/what/nobody/wrote", 403),
    ],
)
def test_scopes(served: Served, name: str, method: str, path: str, status: int) -> None:
    answer = served.running.ask(method, path, ROWS if method == "POST" else b"", JSON | bearer(getattr(served, name)))
    assert answer.status == status, answer.text
    if status == 403:
        assert "it needs the scope" in answer.text


def test_influx_and_basic_have_their_own_words(served: Served) -> None:
    for said in (f"Token {served.reader}", "Basic " + base64.b64encode(f"any:{served.reader}".encode()).decode()):
        assert served.running.ask("GET", "/v1/models", headers={"Authorization": said}).status == 200
    for said in ("Basic nonsense", "Basic", "Bearer", served.reader, f"Digest {served.reader}"):
        assert served.running.ask("GET", "/v1/models", headers={"Authorization": said}).status == 401


def test_one_owners_stream_is_not_anothers(served: Served) -> None:
    """One name, two streams: neither sees, goes on with or deletes the other's."""
    mine, theirs = (json.loads(rows(served, token, "shared").text) for token in (served.alice, served.bob))
    for said in (mine, theirs):
        assert (said["stream"], said["resumed"], said["position"]) == ("shared", False, 2)
    assert mine["events"] == theirs["events"] != []
    assert rows(served, served.alice, "mine").status == 200
    other = bearer(served.bob)
    assert served.running.ask("GET", "/v1/streams/mine", headers=other).status == 404
    assert served.running.ask("DELETE", "/v1/streams/mine", headers=other).status == 404
    assert rows(served, served.bob, "mine", "?position=2&model=plant").status == 409  # his own begins at 0
    assert json.loads(served.running.ask("GET", "/v1/streams/mine", headers=bearer(served.alice)).text)["position"] == 2
    for spelled in ("alice%1Fmine", "%1Fmine", "alice/mine"):
        found = served.running.ask("GET", f"/v1/streams/{spelled}", headers=other)
        assert found.status in (400, 404), spelled
        assert "position" not in json.loads(found.text)
    assert served.running.ask("DELETE", "/v1/streams/mine", headers=bearer(served.alice)).status == 204


def test_a_stream_is_resumed_by_its_owner_alone(served: Served) -> None:
    async def resume(secret: str, stream: str) -> dict[str, Any]:
        async with connect(served.running.url, additional_headers=bearer(secret), proxy=None) as socket:
            await socket.send(json.dumps({"type": "resume", "stream": stream}))
            return dict(json.loads(await socket.recv()))

    async def go() -> None:
        async with StreamClient(served.running.url, sample_rate=RATE, model="toy", token=served.alice) as stream:
            await stream.send(noise(1, 1.0))
            await stream.safe()
        assert stream.id is not None
        assert stream.id.isalnum()
        for attempt in (stream.id, f"alice\x1f{stream.id}", f"\x1f{stream.id}"):
            assert (await resume(served.bob, attempt))["code"] in ("unknown_stream", "key")
        assert (await resume(served.alice, stream.id))["position"] == RATE

    asyncio.run(go())


def test_sequences_of_one_secret_and_id_are_each_owners_own(served: Served) -> None:
    def step(secret: str, start: bool) -> Answer:
        document = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}],
            "parameters": {"sequence_id": 42, "sequence_start": start},
        }
        headers = JSON | bearer(secret) | {"streamer-client": "the same"}
        return served.running.ask("POST", "/v2/models/plant/infer", json.dumps(document).encode(), headers)

    assert step(served.alice, True).status == 200
    assert step(served.bob, False).status == 400
    assert step(served.bob, True).status == 200
    for secret in (served.alice, served.bob):
        assert json.loads(step(secret, False).text)["parameters"]["sequence_position"] == 4


def test_a_websocket_takes_its_token_from_a_header_or_a_subprotocol(served: Served) -> None:
    async def start(**options: Any) -> Any:
        async with connect(served.running.url, proxy=None, **options) as socket:
            await socket.send('{"type":"start","model":"plant"}')
            assert json.loads(await socket.recv())["type"] == "ready"
            return socket.subprotocol

    async def go() -> None:
        assert await start(additional_headers=bearer(served.alice)) is None
        page = {"Origin": f"http://127.0.0.1:{served.running.port}"}
        offered = ["streamer", f"streamer.token.{served.alice}"]
        assert await start(subprotocols=offered, additional_headers=page) == "streamer"
        for options in ({}, {"subprotocols": ["streamer", "streamer.token.wrong"]}):
            with pytest.raises(InvalidStatus) as refused:
                await start(**options)
            assert refused.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as refused:
            await start(subprotocols=offered, additional_headers={"Origin": "https://evil.example"})
        assert refused.value.response.status_code == 403

    asyncio.run(go())


def test_a_client_says_why_it_was_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMER_TOKEN", raising=False)
    with pytest.raises(StreamError, match="401: a token is needed"), SyncRowStream(served.running.url, model="plant"):
        pass
    with (
        pytest.raises(StreamError, match="it needs the scope stream"),
        SyncRowStream(served.running.url, model="plant", token=served.reader),
    ):
        pass
    monkeypatch.setenv("STREAMER_TOKEN", served.alice)
    with SyncRowStream(served.running.url, model="plant") as stream:
        assert stream.step([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.long
def test_a_removed_token_opens_nothing_and_holds_nothing(served: Served) -> None:
    async def go() -> None:
        secret = give(served.state, "passing", "stream")
        await asyncio.to_thread(until, lambda: rows(served, secret, "p").status == 200)
        async with connect(served.running.url, additional_headers=bearer(secret), proxy=None) as socket:
            await socket.send('{"type":"start","model":"plant"}')
            assert json.loads(await socket.recv())["type"] == "ready"
            TokenFile(served.state / "tokens.json").remove("passing")
            _, code = await until_closed(socket)
            assert (code, socket.close_reason) == (1008, "the token of this connection was removed")
        assert (await asyncio.to_thread(rows, served, secret, "p")).status == 401

    asyncio.run(go())


def test_no_token_is_in_the_log(served: Served) -> None:
    rows(served, served.alice, "logged")
    served.running.ask("GET", "/metrics", headers=bearer(wrong := new_secret()))
    log = served.running.errors.read_text()
    assert "a wrong token" in log
    assert [each for each in (served.alice, served.bob, wrong) if each in log] == []


def test_an_administrator_names_the_owner(served: Served) -> None:
    for secret, body in ((served.alice, ROWS), (served.bob, b"[[7,8,9]]")):
        assert rows(served, secret, "same", body=body).status == 200
    ask, admin = served.running.ask, bearer(served.admin)
    listed = json.loads(ask("GET", "/v1/sessions", headers=admin).text)["sessions"]
    found = {one["owner"]: one["position"] for one in listed if one["stream"] == "same"}
    assert found == {"alice": 2, "bob": 1}
    assert "\x1f" not in json.dumps(listed)
    peer = Peer(f"http://127.0.0.1:{served.running.port}", served.admin)
    data = peer.ask("GET", "/v1/sessions/same", owner="alice")
    assert ask("GET", "/v1/sessions/same", headers=admin).status == 404
    assert ask("GET", "/v1/sessions/same?owner=alice", headers=bearer(served.alice)).status == 403
    with pytest.raises(PeerError, match="409: these are the bytes of stream 'same'"):
        peer.ask("PUT", "/v1/sessions/same", data, owner="bob")
    peer.ask("POST", "/v1/sessions/same/evict", owner="alice")
    assert json.loads(peer.ask("PUT", "/v1/sessions/same", data, owner="alice"))["position"] == 2
    assert json.loads(ask("GET", "/v1/streams/same", headers=bearer(served.bob)).text)["position"] == 1
