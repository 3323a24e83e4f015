"""Rows of tensors over the WebSocket: any dtype, whole rows or nothing, under names that outlive the connection."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection

from streamer.engine.model import Model
from streamer.serve.stream.protocol import CLOSE_CODES
from tests.daemon.running import Running, daemon
from tests.daemon.talk import dial, until_closed
from tests.rows import row_model, some_rows


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("rows")
    return [row_model(folder), row_model(folder, name="four", chunk=4), row_model(folder, name="trap", fails_on=7.0)]


@pytest.fixture(scope="module")
def serving(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("serving"), *models, checkpoint_seconds=0.2, max_batch=4) as running:
        yield running


@asynccontextmanager
async def started(url: str, **start: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    async with dial(url) as socket:
        await socket.send(json.dumps({"type": "start", **start}))
        yield socket, json.loads(await socket.recv())


async def numbered(socket: ClientConnection, kind: str = "outputs") -> dict[str, Any]:
    """The next event of the kind."""
    async with asyncio.timeout(30):
        while True:
            frame = await socket.recv()
            if isinstance(frame, str) and (event := json.loads(frame))["type"] in (kind, "error"):
                assert event["type"] == kind, event
                return event


def whole(path: Path, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Outputs of all rows, by the plainest loop; the last chunk is padded, its outputs cut."""
    model = Model.load(path)
    manifest, state, parts = model.manifest, model.zero_state(1), []
    padded = np.zeros(-(-len(rows) // manifest.chunk) * manifest.chunk, rows.dtype)
    padded[: len(rows)] = rows
    for chunk in padded.reshape(-1, 1, manifest.chunk):
        outputs = model.run({**manifest.fields(chunk), **state})
        state = manifest.carry(outputs)
        parts.append(outputs)
    found = {o.name: np.concatenate([part[o.name][0] for part in parts]) for o in manifest.outputs}
    return {name: array[: -(-len(rows) * len(array) // len(padded))] for name, array in found.items()}


def joined(events: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    names = events[0]["outputs"]
    return {name: np.concatenate([np.array(event["outputs"][name]) for event in events]) for name in names}


def same(got: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_ready_says_what_a_row_is(serving: Running) -> None:
    async def talk() -> None:
        async with started(serving.url, model="four") as (_, ready):
            assert (ready["type"], ready["task"], ready["position"], ready["resumed"]) == ("ready", "raw", 0, False)
            assert ready["inputs"] == [{"name": "x", "dtype": "float32", "shape": [3]}]
            assert (ready["row_bytes"], ready["chunk_rows"], ready["conditions"]) == (12, 4, [])
            assert [output["shape"] for output in ready["outputs"]] == [[4, 2], [4], [2]]
            assert "sample_rate" not in ready

    asyncio.run(talk())


@pytest.mark.parametrize("form", ["binary", "values", "inputs"])
@pytest.mark.parametrize("model", ["plant", "four"])
def test_rows_in_outputs_out(serving: Running, models: list[Path], model: str, form: str) -> None:
    rows = some_rows(1, 41)

    async def talk() -> list[dict[str, Any]]:
        async with started(serving.url, model=model) as (socket, _):
            for part in np.array_split(rows, 7):
                if form == "binary":
                    await socket.send(part.tobytes())
                else:
                    values = part["x"].tolist()
                    inputs = {"values": values} if form == "values" else {"inputs": {"x": values}}
                    await socket.send(json.dumps({"type": "rows", **inputs}))
            await socket.send('{"type":"end"}')
            return (await until_closed(socket))[0]

    events = asyncio.run(talk())
    assert events[-1] == {"type": "end", "position": 41, "seq": len(events)}
    outputs = events[:-1]
    chunk = 4 if model == "four" else 1
    assert [(e["start"], e["end"], e["steps"]) for e in outputs] == [
        (at, min(at + chunk, 41), min(chunk, 41 - at)) for at in range(0, 41, chunk)
    ]
    path = next(path for path in models if path.stem == model)
    same(joined(outputs), whole(path, rows))


def test_tensors_as_bytes_on_request(serving: Running, models: list[Path]) -> None:
    rows = some_rows(2, 6)

    async def talk() -> dict[str, NDArray[Any]]:
        parts: dict[str, list[NDArray[Any]]] = {}
        async with started(serving.url, model="four", outputs="binary") as (socket, ready):
            dtypes = {output["name"]: output["dtype"] for output in ready["outputs"]}
            await socket.send(rows.tobytes())
            await socket.send('{"type":"end"}')
            for _ in range(2):
                event = await numbered(socket)
                data, at = await socket.recv(), 0
                assert isinstance(data, bytes)
                for name, shape in event["shapes"].items():
                    count = int(np.prod(shape))
                    array = np.frombuffer(data, np.dtype(dtypes[name]).newbyteorder("<"), count, at)
                    parts.setdefault(name, []).append(array.reshape(shape))
                    at += array.nbytes
                assert at == len(data)
            return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    same(asyncio.run(talk()), whole(models[1], rows))


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        (b"\0" * 13, "bad_rows", "13 bytes are no whole number of rows of 12 bytes (x float32 [3])"),
        ('{"type":"rows","values":[[1,2]]}', "bad_rows", "input 'x' has the shape [2]: x float32 [3] is expected"),
        ('{"type":"rows","inputs":{"y":[[1,2,3]]}}', "bad_rows", "must have exactly the inputs x float32 [3], not y"),
        ('{"type":"rows","values":[[1,2,"3"]]}', "bad_rows", "input 'x' is float32, not text"),
        ('{"type":"rows"}', "bad_frame", "give either values or inputs"),
        ('{"type":"rows","values":[[1,2,3]' + " " * 30_000, "bad_json", "not JSON"),
        ('{"type":"marker","id":"' + "x" * 30_000 + '"}', "too_long", "max_control_bytes"),
    ],
)
def test_what_is_no_row_is_refused_and_nothing_is_taken(
    serving: Running, frame: str | bytes, code: str, message: str
) -> None:
    key = f"broken {code} {message[:20]}"

    async def talk() -> None:
        async with started(serving.url, model="plant", key=key) as (socket, _):
            await socket.send(some_rows(1, 3).tobytes())
            await socket.send(frame)
            told, _ = await until_closed(socket)
            assert told[-1]["code"] == code
            assert message in told[-1]["message"]
        async with started(serving.url, model="plant", key=key) as (_, ready):
            assert (ready["position"], ready["resumed"]) == (3, True)

    asyncio.run(talk())


def test_long_text_rows_keep_their_order(serving: Running, models: list[Path]) -> None:
    """They are read in a thread, and what comes behind them waits."""
    rows = some_rows(3, 2000)

    async def talk() -> list[dict[str, Any]]:
        async with started(serving.url, model="four") as (socket, _):
            await socket.send(json.dumps({"type": "rows", "values": rows["x"][:1999].astype(float).tolist()}))
            await socket.send(rows[1999:].tobytes())
            await socket.send('{"type":"marker","id":"m"}')
            await socket.send('{"type":"end"}')
            return (await until_closed(socket))[0]

    events = asyncio.run(talk())
    assert [event["type"] for event in events[-2:]] == ["marker", "end"]
    assert events[-2]["position"] == 2000
    same(joined([event for event in events if event["type"] == "outputs"]), whole(models[1], rows))


def test_a_key_goes_on_where_it_was_across_connections(serving: Running, models: list[Path]) -> None:
    rows = some_rows(4, 10)

    async def talk() -> list[dict[str, Any]]:
        events = []
        for number, part in enumerate(np.array_split(rows, 3)):
            async with started(serving.url, model="plant", key="pump-7") as (socket, ready):
                assert ready["stream"] == "pump-7"
                assert ready["resumed"] == (number > 0)
                assert ready["position"] == len(events)
                await socket.send(part.tobytes())
                events += [await numbered(socket) for _ in part]
        return events

    events = asyncio.run(talk())
    assert [event["seq"] for event in events] == list(range(1, 11))
    same(joined(events), whole(models[0], rows))


def test_the_newer_connection_of_a_key_takes_over_and_the_older_is_told(serving: Running) -> None:
    async def talk() -> None:
        async with started(serving.url, model="plant", key="pump-8") as (old, _):
            await old.send(some_rows(5, 2).tobytes())
            await numbered(old)
            await numbered(old)
            async with started(serving.url, model="plant", key="pump-8") as (new, ready):
                assert (ready["position"], ready["seq"]) == (2, 2)
                told, code = await until_closed(old)
                assert (told[-1]["code"], code) == ("taken_over", 4409)
                await new.send(some_rows(6, 1).tobytes())
                assert (await numbered(new))["start"] == 2

    asyncio.run(talk())


def test_who_says_what_it_has_seen_gets_the_rest(serving: Running) -> None:
    async def talk() -> None:
        async with started(serving.url, model="plant", key="pump-9") as (socket, _):
            await socket.send(some_rows(5, 4).tobytes())
            for _ in range(4):
                await numbered(socket)
        async with started(serving.url, model="plant", key="pump-9", seq=2) as (socket, _):
            assert [(await numbered(socket))["seq"] for _ in range(2)] == [3, 4]

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"model": "four"}, "goes on with the model plant"),
        ({"model": "plant", "sample_rate": 8000}, "goes on with no sample rate"),
        ({"model": "plant", "key": ""}, "is not a name"),
        ({"model": "plant", "key": "a\nb"}, "is not a name"),
        ({"model": "plant", "key": "x" * 201}, "is not a name"),
    ],
)
def test_a_key_that_can_not_be_had_is_refused(serving: Running, start: dict[str, Any], message: str) -> None:
    async def talk() -> None:
        async with started(serving.url, model="plant", key="taken"):
            pass
        async with started(serving.url, **{"key": "taken", **start}) as (socket, told):
            assert (told["type"], told["code"]) == ("error", "conflict" if "goes on" in message else "key")
            assert message in told["message"]
            assert (await until_closed(socket))[1] == CLOSE_CODES[told["code"]]

    asyncio.run(talk())


def test_an_ended_key_begins_anew(serving: Running) -> None:
    async def talk() -> None:
        for _ in range(2):
            async with started(serving.url, model="plant", key="short") as (socket, ready):
                assert (ready["position"], ready["resumed"]) == (0, False)
                await socket.send(some_rows(5, 2).tobytes())
                await socket.send('{"type":"end"}')
                assert (await until_closed(socket))[0][-1]["type"] == "end"

    asyncio.run(talk())


def test_a_poisoned_neighbour_costs_nobody_else(serving: Running, models: list[Path]) -> None:
    rows, poison = some_rows(7, 30), some_rows(8, 30)
    poison["x"][20] = 7.0

    async def run(data: NDArray[Any]) -> list[dict[str, Any]]:
        async with started(serving.url, model="trap") as (socket, _):
            for part in np.array_split(data, 15):
                await socket.send(part.tobytes())
            await socket.send('{"type":"end"}')
            return (await until_closed(socket))[0]

    async def talk() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(run(poison), *(run(rows) for _ in range(5)))

    bad, *good = asyncio.run(talk())
    assert bad[-1]["code"] == "model_failed"
    for events in good:
        assert events[-1]["type"] == "end"
        same(joined(events[:-1]), whole(models[2], rows))


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_a_key_survives_the_daemon(models: list[Path], tmp_path: Path, number: signal.Signals) -> None:
    """Stopped or killed between any two rows: the client sends again from ``position``."""
    rows = some_rows(9, 40)

    async def send(running: Running, first: int, last: int) -> dict[int, dict[str, Any]]:
        async with started(running.url, model="four", key="pump-7") as (socket, ready):
            assert ready["position"] <= first
            await socket.send(rows[ready["position"] : last].tobytes())
            got: dict[int, dict[str, Any]] = {}
            reached = ready["position"] // 4 * 4
            while reached < last // 4 * 4:
                event = await numbered(socket)
                got[event["start"]] = event
                reached = event["end"]
            while (await numbered(socket, "ack"))["position"] < last:
                pass
            return got

    seen: dict[int, dict[str, Any]] = {}
    for first, last in [(0, 13), (13, 14), (14, 40)]:
        with daemon(tmp_path, models[1], checkpoint_seconds=0.1) as running:
            for start, event in asyncio.run(send(running, first, last)).items():
                event.pop("seq")
                assert seen.setdefault(start, event) == event
            running.stop(number)
    same(joined([seen[start] for start in sorted(seen)]), whole(models[1], rows))


@pytest.mark.long
def test_models_that_have_no_sample_rate_are_served(tmp_path: Path) -> None:
    """Texts, written lines and phrases of the zoo: each by its own task."""
    opinion = b"this film is wonderful"

    async def talk(running: Running) -> None:
        async with started(running.url, model="sentiment") as (socket, ready):
            assert (ready["task"], ready["row_bytes"]) == ("classify", 1)
            await socket.send(opinion)
            await socket.send('{"type":"end"}')
            events, code = await until_closed(socket)
            assert code == 1000
            (final,) = (event for event in events if event["type"] == "final")
            assert final["label"] == "positive"
        for model, task in (("written-line", "transcribe"), ("numbers", "rewrite"), ("written", "rewrite")):
            async with started(running.url, model=model) as (socket, ready):
                assert ready["task"] == task
                await socket.send(bytes(ready["row_bytes"] * ready["chunk_rows"]))
                await socket.send('{"type":"end"}')
                assert (await until_closed(socket))[1] == 1000

    names = ("sentiment", "written-line", "numbers", "written")
    with daemon(tmp_path, *map(Path, names)) as running:
        asyncio.run(talk(running))
        assert running.metrics()['streamer_rows_total{model="sentiment"}'] == len(opinion)
