"""What the service manager is told, by a test that owns its socket."""

import asyncio
import http.client
import json
import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from websockets.exceptions import InvalidStatus

from tests.daemon.running import Running, daemon
from tests.daemon.talk import opened, until_closed
from tests.toys import toy_model

TRAP = 31000


def stuck_model(path: Path) -> Path:
    """The toy, but a sample of ``TRAP`` sends it into a loop of 10^15 rounds."""
    model = onnx.load(toy_model(path, name="stuck"))
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["free" if name == "log_probs" else name for name in node.output]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go.next"]),
            helper.make_node("Identity", ["x"], ["x.next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go.next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x.next", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(TRAP, np.int32), "stuck.trap"),
            numpy_helper.from_array(np.array(10**15, np.int64), "stuck.rounds"),
            numpy_helper.from_array(np.array(True), "stuck.go"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Cast", ["pcm"], ["stuck.pcm"], to=TensorProto.INT32),
            helper.make_node("Equal", ["stuck.pcm", "stuck.trap"], ["stuck.hit"]),
            helper.make_node("Cast", ["stuck.hit"], ["stuck.hits"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["stuck.hits"], ["stuck.any"], keepdims=0),
            helper.make_node("Mul", ["stuck.any", "stuck.rounds"], ["stuck.count"]),
            helper.make_node("Loop", ["stuck.count", "stuck.go", "free"], ["log_probs"], body=body),
        ]
    )
    onnx.save(model, path / "stuck.onnx")
    return path / "stuck.onnx"


def test_ready_status_watchdog_stopping(toy: Path, tmp_path: Path) -> None:
    running = Running(tmp_path, toy, wait=False, watchdog_usec=200_000)
    try:
        ready = running.wait_for("READY=1")
        assert f"MAINPID={running.process.pid}" in ready
        assert "STATUS=0 connections on toy" in ready
        assert running.wait_for("WATCHDOG=1") == "WATCHDOG=1"
        assert running.wait_for("WATCHDOG=1") == "WATCHDOG=1"
        running.process.send_signal(signal.SIGTERM)
        assert "STATUS=draining" in running.wait_for("STOPPING=1")
        assert running.process.wait(30) == 0
    finally:
        running.stop(signal.SIGKILL)


def test_ready_comes_after_the_port(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy) as running:
        assert running.get("/readyz") == (200, "ready\n")


@pytest.mark.long
def test_the_watchdog_starves_while_the_engine_is_stuck(tmp_path: Path) -> None:
    async def into_the_trap(running: Running) -> None:
        async with opened(running.url) as (connection, _):
            await connection.send(np.full(8000, TRAP, "<i2").tobytes())
            async with asyncio.timeout(60):
                while (await asyncio.to_thread(running.get, "/healthz"))[0] == 200:
                    pass
            connection.transport.abort()

    folder = tmp_path / "models"
    folder.mkdir()
    with daemon(tmp_path, stuck_model(folder), watchdog_usec=200_000, stuck_seconds=0.5) as running:
        running.wait_for("WATCHDOG=1")
        asyncio.run(into_the_trap(running))
        running.wait_for("STATUS=" + running.get("/readyz")[1].strip()[:10])
        # from here on the loop goes on telling its status, and never that all is well
        told = [running.manager.recv(4096).decode() for _ in range(5)]
        assert not [message for message in told if "WATCHDOG=1" in message]
        running.stop(signal.SIGKILL)


def test_while_it_drains_it_is_not_ready_but_alive(tmp_path: Path) -> None:
    """A load balancer and a Prometheus, who come anew, are told so too; only streams are not welcome."""

    def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    async def go(running: Running) -> None:
        async with opened(running.url) as (stream, _):
            await stream.send(np.full(8000, TRAP, "<i2").tobytes())  # keeps the drain waiting
            await stream.send('{"type":"start"}')  # refused after what came before it was taken
            assert (await until_closed(stream))[1] == 1002

    folder = tmp_path / "models"
    folder.mkdir()
    with daemon(tmp_path, stuck_model(folder), stuck_seconds=1000, drain_seconds=1000) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        assert ask(connection, "/readyz") == (200, "ready\n")
        asyncio.run(go(running))
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("STOPPING=1")
        assert ask(connection, "/readyz") == (503, "draining: the daemon is going down: try again in a moment\n")
        assert ask(connection, "/healthz") == (200, "ok\n")
        connection.close()
        assert running.get("/readyz") == (503, "draining: the daemon is going down: try again in a moment\n")
        assert running.metrics()["streamer_connections"] == 0
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(go(running))
        assert refused.value.response.status_code == 503
        assert b"draining" in (refused.value.response.body or b"")
        for path in ("/v1/streams/a?model=toy", "/v1/generate"):
            assert running.ask("POST", path, b"[]").status == 503, path
        running.stop(signal.SIGKILL)


@pytest.mark.long
def test_a_stuck_engine_does_not_keep_it_from_going(tmp_path: Path) -> None:
    async def go(running: Running) -> None:
        async with opened(running.url) as (stream, _):
            await stream.send(np.full(8000, TRAP, "<i2").tobytes())
            async with asyncio.timeout(30):
                while not (await asyncio.to_thread(running.metrics))["streamer_received_bytes_total"]:
                    pass
            running.process.send_signal(signal.SIGTERM)
            frames, code = await until_closed(stream)
            assert (frames[-1]["type"], code) == ("restart", 1012)
            assert frames[-1]["position"] == 0  # it could not be saved, and nothing else is promised

    folder = tmp_path / "models"
    folder.mkdir()
    with daemon(tmp_path, stuck_model(folder), stuck_seconds=0.2, drain_seconds=0.5) as running:
        asyncio.run(go(running))
        assert running.process.wait(30) == 0


def test_log_level_is_read_again_on_hangup(toy: Path, tmp_path: Path) -> None:
    config = tmp_path / "streamer.toml"
    config.write_text('log_level = "info"\n')
    with daemon(tmp_path, toy, config=config) as running:
        config.write_text('log_level = "debug"\n')
        os.kill(running.process.pid, signal.SIGHUP)
        # the signal is handled in the loop before a connection made after it
        assert running.get("/healthz")[0] == 200
        assert running.stop() == 0
        records = [json.loads(line) for line in running.errors.read_text().splitlines()]
        assert any(record.get("log_level") == "debug" for record in records)


@pytest.mark.parametrize("style", ["json", "console"])
def test_logs(toy: Path, tmp_path: Path, style: str) -> None:
    with daemon(tmp_path, toy, log_format=style) as running:
        assert running.stop() == 0
        lines = running.errors.read_text().splitlines()
    assert any("going down" in line for line in lines)
    if style == "json":
        assert {"time", "level", "logger", "event"} <= set(json.loads(lines[0]))
