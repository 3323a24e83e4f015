"""Generators over HTTP: what a seed gives in process it gives here, whoever else writes, and again after a crash."""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.serve.generate import EventLines
from streamer.settings import Settings
from streamer.streams.generation import Generation
from streamer.streams.generators import Generators
from tests.daemon.running import ROOT, Running, daemon

TRAINED = ROOT / "models" / "zoo" / "trained"
CHARACTERS, SPOKEN = TRAINED / "characters.onnx", TRAINED / "spoken-digits.onnx"
LENGTH = 100


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("writing"), CHARACTERS, SPOKEN) as running:
        yield running


def ask(port: int, wish: Any) -> tuple[int, list[dict[str, Any]]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/generate", wish if isinstance(wish, bytes) else json.dumps(wish))
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]
    finally:
        connection.close()


def text(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text")


def in_process(length: int, **options: Any) -> str:
    model = Model.load(CHARACTERS)
    one = Generation(model, [options])
    said = "".join(
        event.to_dict()["text"] for _ in range(-(-length // model.manifest.steps)) for event in one.step()[0]
    )
    return said[:length]


def wish(seed: int, length: int = LENGTH, **more: Any) -> dict[str, Any]:
    options = {"seed": seed, "temperature": 0.8, "prompt": "the "}
    return {"model": "characters", "length": length, "options": options, **more}


@pytest.mark.long
def test_what_a_seed_gives_whoever_else_is_writing(writing: Running) -> None:
    want = [in_process(LENGTH, **wish(seed)["options"]) for seed in range(1, 7)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda seed: ask(writing.port, wish(seed)), range(1, 7)))
    assert [status for status, _ in found] == [200] * 6
    assert [text(events) for _, events in found] == want
    assert len(set(want)) == 6
    assert [events[-1] for _, events in found] == [{"type": "end", "position": LENGTH}] * 6


def test_sound(writing: Running) -> None:
    status, events = ask(
        writing.port, {"model": "spoken-digits", "length": 4000, "options": {"conditions": {"digit": "seven"}}}
    )
    assert status == 200
    samples = [len(base64.b64decode(event["pcm"])) // 2 for event in events[:-1]]
    assert [event["position"] for event in events] == list(itertools.accumulate(samples, initial=0))
    assert sum(samples) == 4000


def test_whoever_has_a_part_gets_the_rest_even_after_a_crash(tmp_path: Path) -> None:
    with daemon(tmp_path, CHARACTERS) as first:
        _, whole = ask(first.port, wish(3))
        first.stop(signal.SIGKILL)
    with daemon(tmp_path, CHARACTERS) as second:
        status, rest = ask(second.port, wish(3, after=70))
    assert status == 200
    begin = rest[0]["position"]
    assert 0 < begin <= 70
    assert text(rest) == text(whole)[begin:]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "is not JSON"),
        (b"[]", 400, "the body"),
        ({"model": "characters", "length": 0}, 400, "length"),
        ({"model": "characters", "length": 10**12}, 400, "max_generated_tokens"),
        ({"model": "characters", "speed": 3}, 400, "speed"),
        ({"model": "nobody"}, 404, "characters, spoken-digits"),
        ({}, 404, "characters, spoken-digits"),
        ({"model": "characters", "options": {"temperature": -1}}, 400, "temperature"),
        ({"model": "characters", "options": {"prompt": "ß"}}, 400, "does not know"),
        ({"model": "spoken-digits", "options": {"conditions": {"digit": "twelve"}}}, 400, "is one of"),
    ],
)
def test_a_wish_that_can_not_be(writing: Running, body: Any, status: int, says: str) -> None:
    got, (problem,) = ask(writing.port, body)
    assert got == status
    assert says in problem["error"]


def endless(port: int) -> socket.socket:
    """A client that asks for much and reads nothing."""
    body = json.dumps(wish(9, 10_000_000)).encode()
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def test_who_does_not_read_stands_still_and_is_given_up(tmp_path: Path) -> None:
    settings = Settings(state_directory=tmp_path, send_seconds=0.2, max_unread_events=5, capacity=2, max_batch=2)
    generators = Generators(settings, Metrics())
    generators.load([CHARACTERS])

    async def never(*message: Any) -> Any:
        await asyncio.sleep(3600)

    async def ask_and_not_read() -> int:
        there = asyncio.Event()
        stream = generators.open("characters", {}, 1_000_000, 0, there.set)
        standing = -1
        while standing != stream.memory.position or not standing:  # it stands still, though nobody has told it to
            standing = stream.memory.position
            await asyncio.sleep(0.2)
        await EventLines(generators, stream, there)({"type": "http"}, never, never)
        return standing

    standing = asyncio.run(ask_and_not_read())
    assert standing == 5 * Model.load(CHARACTERS).manifest.steps
    assert generators.describe()[0]["streams"] == 0
    assert generators.close()


def test_who_leaves_gives_the_slot_back(tmp_path: Path) -> None:
    with daemon(tmp_path, CHARACTERS, capacity=1) as running:
        endless(running.port).close()
        deadline = threading.Event()
        while (answer := ask(running.port, wish(2)))[0] == 503:
            assert not deadline.wait(0.05)
        assert len(text(answer[1])) == LENGTH


@pytest.mark.long
def test_going_down_says_where_to_go_on(tmp_path: Path) -> None:
    with daemon(tmp_path, CHARACTERS) as running, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, running.port, wish(4, 5_000_000))
        while 'streamer_steps_total{model="characters"} 0.0' in running.get("/metrics")[1]:
            pass
        assert running.stop() == 0
        status, events = asked.result()
    assert status == 200
    last = events[-1]
    assert last["type"] == "restart"
    assert last["position"] < 5_000_000
    assert len(text(events)) == last["position"]
