"""A model file changes while the daemon runs: who is there finishes as it began, and who comes gets the new version."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from streamer.client import StreamClient
from streamer.contract.manifest import KEY
from streamer.engine.catalogue import resolve
from tests.daemon.running import Proxy, Running, daemon
from tests.daemon.talk import RATE, expected, noise, same, text, transcribe
from tests.daemon.test_generate import CHARACTERS
from tests.daemon.test_moving import ask
from tests.daemon.test_sensors import forecast, ndjson, post
from tests.sensors.test_versions import version
from tests.toys import toy_model


@pytest.fixture
def versions(tmp_path: Path) -> list[Path]:
    """The first one as it is served; copies of both that stay."""
    folders = [tmp_path / name for name in ("served", "first", "second")]
    for folder in folders:
        folder.mkdir()
    first = toy_model(folders[1])
    second = toy_model(folders[2], hidden=6, version="2")
    return [Path(shutil.copy(first, folders[0])), first, second]


def replace(served: Path, by: Path | bytes) -> None:
    partial = served.with_suffix(".partial")
    if isinstance(by, bytes):
        partial.write_bytes(by)
    else:
        shutil.copy(by, partial)
    partial.replace(served)


def reloaded(running: Running) -> dict[str, Any]:
    status, said, _ = ask(running, "POST", "/v1/reload")
    assert status == 200
    return json.loads(said)["models"]["toy"]  # type: ignore[no-any-return]


@pytest.mark.long
def test_who_is_there_finishes_on_the_old_version(versions: list[Path], tmp_path: Path) -> None:
    served, first, second = versions
    pcm = noise(5, 6)
    half = len(pcm) // 4 * 2

    async def talk(running: Running) -> list[str]:
        async with StreamClient(running.url, sample_rate=RATE) as stream:
            await stream.send(pcm[:half])
            await stream.safe()
            replace(served, second)
            assert (await asyncio.to_thread(reloaded, running))["outcome"] == "reloaded"
            assert (await asyncio.to_thread(reloaded, running))["outcome"] == "unchanged"
            new = text(await transcribe(running.url, [pcm]))
            evicted = await asyncio.to_thread(ask, running, "POST", f"/v1/sessions/{stream.id}/evict")
            assert evicted[0] == 204
            await stream.send(pcm[half:])  # wakes it, on the version that it is of
            await stream.end()
            return [text([event async for event in stream]), new]

    with daemon(tmp_path / "state", served, checkpoint_seconds=0.1) as running:
        old, new = asyncio.run(talk(running))
        assert [model["version"] for model in json.loads(running.get("/v1/models")[1])["models"]] == ["2"]
        page = running.metrics()
        assert page['streamer_model_reloads_total{model="toy",outcome="reloaded"}'] == 1
        assert page["streamer_old_models"] == 1
    same(old, expected(first, pcm))
    same(new, expected(second, pcm))
    assert new != old


@pytest.mark.long
def test_an_old_version_that_nobody_can_come_back_to_goes(versions: list[Path], tmp_path: Path) -> None:
    served, first, second = versions
    with daemon(tmp_path / "state", served, checkpoint_seconds=0.05, keep_seconds=0, max_old_models=1) as running:
        replace(served, second)
        assert reloaded(running)["outcome"] == "reloaded"
        while running.metrics()["streamer_old_models"]:
            pass
        replace(served, first)
        assert reloaded(running)["outcome"] == "reloaded"


@pytest.mark.parametrize("told", [True, False])
def test_who_was_there_goes_on_after_a_kill(versions: list[Path], tmp_path: Path, told: bool) -> None:
    """``told``: the daemon took the new version before it was killed; else the file only lay there."""
    served, first, second = versions
    pcm = noise(5, 6)
    half = len(pcm) // 4 * 2

    async def talk() -> tuple[str, str]:
        with daemon(tmp_path / "one", served, state_directory=state, checkpoint_seconds=0.05) as running:
            proxy = await stack.enter_async_context(Proxy.to(running.port))
            stream = await stack.enter_async_context(
                StreamClient(proxy.url, sample_rate=RATE, retry_seconds=60, first_delay=0.02)
            )
            await stream.send(pcm[:half])
            await stream.safe()
            replace(served, second)
            if told:
                assert (await asyncio.to_thread(reloaded, running))["outcome"] == "reloaded"
        with daemon(tmp_path / "two", served, state_directory=state, checkpoint_seconds=0.05) as running:
            proxy.target = running.port
            proxy.cut()
            new = text(await transcribe(running.url, [pcm]))
            await stream.send(pcm[half:])
            await stream.end()
            page = running.metrics()
            assert page["streamer_old_models"] == 1
            assert page['streamer_sessions{model="toy",state="active"}'] == 1
            return text([event async for event in stream]), new

    async def all_of_it() -> tuple[str, str]:
        async with stack:
            return await talk()

    state, stack = tmp_path / "state", contextlib.AsyncExitStack()
    old, new = asyncio.run(all_of_it())
    same(old, expected(first, pcm))
    same(new, expected(second, pcm))


@pytest.mark.long
def test_files_of_old_versions_are_kept_as_long_as_a_stream_may_come_back(versions: list[Path], tmp_path: Path) -> None:
    served, _, second = versions
    kept = tmp_path / "state" / "state" / "models"
    with daemon(tmp_path / "state", served, checkpoint_seconds=0.05, keep_seconds=0) as running:
        before = {path.name for path in kept.iterdir()}
        replace(served, second)
        assert reloaded(running)["outcome"] == "reloaded"
        while running.metrics()["streamer_old_models"]:
            pass
        after = {path.name for path in kept.iterdir()}
        assert len(before) == len(after) == 1
        assert before != after


@pytest.mark.long
def test_files_of_old_versions_are_bounded(versions: list[Path], tmp_path: Path) -> None:
    served, _, _ = versions
    kept = tmp_path / "state" / "state" / "models"
    for letter in "abc":
        replace(served, toy_model(tmp_path, version=letter))
        with daemon(tmp_path / "state", served, max_old_models=1) as running:
            assert running.stop() == 0
    assert len(list(kept.iterdir())) == 2


@pytest.mark.long
def test_what_can_not_serve_is_not_taken_and_said_so(versions: list[Path], tmp_path: Path) -> None:
    served, first, second = versions
    renamed = toy_model(tmp_path, name="another")
    with daemon(tmp_path / "state", served, max_old_models=1) as running:
        for bad, why in ((b"no model", "no ONNX file"), (renamed, "named 'another'")):
            replace(served, bad)
            said = reloaded(running)
            assert said["outcome"] == "failed"
            assert why in said["error"]
            assert text(asyncio.run(transcribe(running.url, [noise(1, 1)]))) == expected(first, noise(1, 1))
        replace(served, second)
        assert reloaded(running)["outcome"] == "reloaded"
        replace(served, first)
        assert "max_old_models" in reloaded(running)["error"]
        assert running.metrics()['streamer_model_reloads_total{model="toy",outcome="failed"}'] == 3


def test_sighup_reloads(versions: list[Path], tmp_path: Path) -> None:
    served, _, second = versions
    with daemon(tmp_path / "state", served) as running:
        replace(served, second)
        os.kill(running.process.pid, signal.SIGHUP)
        while running.metrics().get('streamer_model_reloads_total{model="toy",outcome="reloaded"}') != 1:
            assert running.process.poll() is None


@pytest.mark.long
def test_sensors_go_over_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    """Also where it is killed behind it, and the state on the disk is one of the version before."""
    served = tmp_path / "sensors.onnx"
    shutil.copy(resolve("forecast-online"), served)
    given = [("a", float(hour), float(np.sin(hour))) for hour in range(60)]
    with daemon(tmp_path / "state", served, lanes=1) as running:
        assert post(running, "/v1/readings?forecast=1", ndjson(given[:30]))[0] == 200
        replace(served, version(tmp_path / "second.onnx").read_bytes())
        said = json.loads(ask(running, "POST", "/v1/reload")[1])["models"]["forecast-online"]
        assert (said["outcome"], said["version"]) == ("reloaded", "another")
        assert json.loads(running.get("/v1/models")[1])["models"][0]["digest"] == said["digest"]
        assert post(running, "/v1/readings?forecast=1", ndjson(given[30:40]))[0] == 200
        running.stop(signal.SIGTERM)
    replace(served, resolve("forecast-online"))
    with daemon(tmp_path / "state", served, lanes=1) as running:
        assert post(running, "/v1/readings?forecast=1", ndjson(given[40:50]))[0] == 200
        replace(served, version(tmp_path / "third.onnx").read_bytes())
        assert json.loads(ask(running, "POST", "/v1/reload")[1])["models"]["forecast-online"]["outcome"] == "reloaded"
        running.stop(signal.SIGKILL)
    with daemon(tmp_path / "state", served, lanes=1) as running:
        for name in ("a", "twin"):
            mine = [(name, hour, value) for _, hour, value in given]
            assert post(running, "/v1/readings?forecast=1", ndjson(mine if name == "twin" else mine[50:]))[0] == 200
        mine, twin = (forecast(running, name, 60) for name in ("a", "twin"))
        assert [mine[key] for key in ("value", "quantiles", "anomaly", "drift")] == [
            twin[key] for key in ("value", "quantiles", "anomaly", "drift")
        ]
        assert mine["scores"]["late"] == twin["scores"]["late"]
        assert running.metrics()["streamer_lost_states_total"] == 0


@pytest.mark.long
def test_a_forecaster_of_another_layout_is_not_taken(tmp_path: Path) -> None:
    served = tmp_path / "sensors.onnx"
    shutil.copy(resolve("forecast-online"), served)
    with daemon(tmp_path / "state", served, lanes=1) as running:
        for bad, why in (
            (resolve("forecast-universal"), "named 'forecast-universal'"),
            (version(tmp_path / "second.onnx", state="another"), "layout"),
        ):
            replace(served, bad)
            said = json.loads(ask(running, "POST", "/v1/reload")[1])["models"]["forecast-online"]
            assert said["outcome"] == "failed"
            assert why in said["error"]
        assert post(running, "/v1/readings?forecast=1", ndjson([("a", 0.0, 1.0)]))[0] == 200


@pytest.mark.long
def test_a_generator_writes_on_as_it_began(tmp_path: Path) -> None:
    served = tmp_path / "characters.onnx"
    shutil.copy(CHARACTERS, served)
    model = onnx.load(str(served))
    (written,) = (prop for prop in model.metadata_props if prop.key == KEY)
    written.value = json.dumps(json.loads(written.value) | {"version": "another"})
    first = {"model": "characters", "length": 10**7, "options": {"seed": 1}}
    with (
        daemon(tmp_path / "state", served, lanes=1) as running,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)) as connection,
    ):
        connection.request("POST", "/v1/generate", json.dumps(first), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        digest = answer.getheader("Model-Digest")
        replace(served, model.SerializeToString())
        said = json.loads(ask(running, "POST", "/v1/reload")[1])["models"]["characters"]
        assert said["outcome"] == "reloaded"
        assert said["digest"] != digest
        assert running.metrics()["streamer_old_generators"] == 1
        assert json.loads(answer.readline())["position"] == 0
        rest = {**first, "length": 100, "after": 50}
        assert ask(running, "POST", "/v1/generate", {**rest, "digest": digest})[0] == 409
        assert ask(running, "POST", "/v1/generate", {**rest, "digest": said["digest"]})[0] == 200
        connection.close()
        while running.metrics()["streamer_old_generators"]:
            pass
        assert ask(running, "POST", "/v1/generate", rest)[0] == 200
