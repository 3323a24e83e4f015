"""``RowStream`` against a real daemon: what a model in process gives, over lost connections, kills and restarts."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import streamer
from streamer.client import RowStream, StreamError, SyncRowStream
from tests.daemon.running import Proxy, Running, daemon
from tests.rows import row_model, some_rows


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    several = row_model(folder, name="several", chunk=4, several=True, condition=True)
    return [row_model(folder), several]


@pytest.fixture(scope="module")
def serving(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("serving"), *models, checkpoint_seconds=0.1, max_batch=4) as running:
        yield running


def expected(path: Path, rows: Any, conditions: dict[str, Any] | None = None) -> dict[str, NDArray[Any]]:
    return streamer.load(path).stream(conditions).step(rows)


def test_steps_are_those_of_the_model_in_process(serving: Running, models: list[Path]) -> None:
    rows = some_rows(3, 12)["x"]
    whole = expected(models[0], rows)
    with SyncRowStream(serving.url, model="plant") as stream:
        assert stream.ready["inputs"][0]["name"] == "x"
        parts = [stream.step(rows[:5]), stream.step(rows[5:6].tolist()), stream.step(rows[6:])]
        stream.safe()
        assert stream.acknowledged == stream.position == 12
        assert stream.end()[-1]["type"] == "end"
    for name, array in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), array, rtol=1e-5, atol=1e-6)
        assert parts[0][name].dtype == array.dtype


def test_several_inputs_and_a_condition(serving: Running, models: list[Path]) -> None:
    rows = some_rows(4, 8, several=True)
    given = {name: rows[name] for name in ("x", "y")}
    mood = {"c": np.full(4, 0.5, np.float32)}
    with SyncRowStream(serving.url, model="several", conditions=mood) as stream:
        got = stream.step(given)
    for name, array in expected(models[1], given, mood).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_told_before_it_is_sent(serving: Running) -> None:
    with SyncRowStream(serving.url, model="several") as stream:
        with pytest.raises(ValueError, match="several inputs"):
            stream.step([[1, 2, 3]])
        with pytest.raises(ValueError, match=r"\[n, 3\]"):
            stream.step({"x": [[1, 2]], "y": [1]})
        with pytest.raises(ValueError, match="'y' is int16"):
            stream.step({"x": [[1, 2, 3]], "y": [0.5]})
        with pytest.raises(ValueError, match="chunks of 4 rows"):
            stream.step({"x": [[1, 2, 3]], "y": [1]})
        assert stream.position == 0
    with pytest.raises(StreamError, match="unknown_model"), SyncRowStream(serving.url, model="nobody"):
        pass


@pytest.mark.parametrize(
    "rows",
    [
        np.full((1, 3), 1e39),
        [[1, 1e39, 3]],
        np.zeros((1, 3), complex),
        [[1, 2j, 3]],
        [["1", "2", "3"]],
        [[1, 2, 3], [1]],
        [[1, 2, 10**400]],
    ],
    ids=["too large", "too large in a list", "complex", "complex in a list", "text", "ragged", "huge"],
)
def test_numbers_are_refused_as_in_process(serving: Running, models: list[Path], rows: Any) -> None:
    with pytest.raises(ValueError, match="input 'x'") as said:
        expected(models[0], rows)
    with SyncRowStream(serving.url, model="plant") as stream:
        with pytest.raises(ValueError, match=f"^{re.escape(str(said.value))}$"):
            stream.step(rows)
        assert stream.position == 0


@pytest.mark.long
def test_a_key_goes_on_where_it_was(models: list[Path], tmp_path: Path) -> None:
    """In another client, and in another daemon."""
    rows = some_rows(5, 9)["x"]
    whole = expected(models[0], rows)["z"]
    parts = []
    with daemon(tmp_path, *models, checkpoint_seconds=0.1) as running:
        with SyncRowStream(running.url, model="plant", key="pump-7") as stream:
            parts.append(stream.step(rows[:3])["z"])
        with SyncRowStream(running.url, model="plant", key="pump-7") as stream:
            assert stream.position == 3
            parts.append(stream.step(rows[3:6])["z"])
            stream.safe()
        assert running.stop() == 0
    with (
        daemon(tmp_path, *models, checkpoint_seconds=0.1) as running,
        SyncRowStream(running.url, model="plant", key="pump-7") as stream,
    ):
        assert (stream.position, stream.ready["resumed"]) == (6, True)
        parts.append(stream.step(rows[6:])["z"])
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_nothing_is_lost_or_run_twice_over_cuts_and_a_kill(models: list[Path], tmp_path: Path) -> None:
    rows = some_rows(6, 60)["x"]
    whole = expected(models[0], rows)

    async def talk() -> None:
        running = Running(tmp_path, *models, checkpoint_seconds=0.1)
        async with Proxy.to(running.port) as proxy:
            bounds: Any = {"first_delay": 0.02, "max_delay": 0.1}
            async with RowStream(proxy.url, model="plant", **bounds) as stream:
                for at in range(0, 60, 4):
                    await stream.send(rows[at : at + 4])
                    if at == 20:
                        proxy.cut()
                    if at == 40:
                        await stream.safe()
                        running.stop(signal.SIGKILL)
                        running = Running(tmp_path, *models, checkpoint_seconds=0.1)
                        proxy.target = running.port
                        proxy.cut()
                await stream.end()
                events = [event async for event in stream if event["type"] == "outputs"]
                assert stream.reconnects >= 2
        running.stop()
        assert [event["start"] for event in events] == list(range(60))
        for name, array in whole.items():
            got = np.concatenate([event["outputs"][name] for event in events])
            np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6)

    asyncio.run(asyncio.wait_for(talk(), 120))


def test_a_connection_older_than_the_retry_time_is_made_again(serving: Running) -> None:
    async def talk() -> None:
        bounds: Any = {"retry_seconds": 0.2, "first_delay": 0.01}
        async with Proxy.to(serving.port) as proxy, RowStream(proxy.url, model="plant", **bounds) as stream:
            loop = asyncio.get_running_loop()
            old = loop.time() + 2 * bounds["retry_seconds"]
            while loop.time() < old:
                await stream.step(np.zeros((1, 3), np.float32))
            proxy.cut()
            await proxy.connections(2)
            outputs = await stream.step(np.zeros((1, 3), np.float32))
            assert (len(outputs["z"]), stream.reconnects) == (1, 1)

    asyncio.run(asyncio.wait_for(talk(), 60))
