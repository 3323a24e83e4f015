"""Realtime sessions that go on: after lost connections, restarts and kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.daemon.running import Running, daemon
from tests.serve.openai.realtime_talk import (
    PREFIX,
    RATE,
    SAID,
    VAD,
    connected,
    events,
    finals,
    run,
    say,
    settings,
    started,
)
from tests.serve.waiting import until
from tests.toys import speech


@pytest.fixture
def lasting(toy: Path, tmp_path: Path) -> Iterator[Running]:
    with daemon(tmp_path, toy, checkpoint_seconds=0.2) as running:
        yield running


def test_a_session_goes_on_after_a_lost_connection(lasting: Running, toy: Path) -> None:
    pcm = speech(SAID).tobytes()
    half = len(speech("AB" + " " * 16 + "A")) * 2

    async def talk() -> tuple[list[Any], Any, list[Any]]:
        async with connected(lasting) as connection:
            session = await started(connection, turns=VAD)
            assert session.streamer["resumable"]
            await say(connection, pcm[:half])
            first = await events(connection)
            connection._connection.transport.abort()
        until(lambda: lasting.metrics()['streamer_sessions{model="toy",state="detached"}'] == 1)
        async with connected(lasting, session=session.id, after=first[-1].event_id) as connection:
            created = await connection.recv()
            assert created.session.id == session.id
            position = created.session.streamer["position"]
            await connection.session.update(session=settings(turns=VAD))
            await say(connection, pcm[2 * position :])
            return first, created.session, await events(connection)

    first, session, second = run(talk())
    expected = finals(toy, pcm)
    assert session.streamer["resumed"]
    assert session.audio.input.format.rate == RATE
    done = [event for event in [*first, *second] if event.type == PREFIX + "completed"]
    assert [event.transcript for event in done] == [final["text"] for final in expected]
    ended = [event for event in second if event.type == "input_audio_buffer.speech_stopped"]
    assert ended[-1].audio_end_ms == round(1000 * expected[-1]["end"])
    assert len({event.item_id for event in done}) == 2


@pytest.mark.long
def test_a_session_goes_on_after_a_restart(toy: Path, tmp_path: Path) -> None:
    pcm = speech(SAID).tobytes()
    half = len(pcm) // 2 // 2 * 2

    async def first(running: Running) -> str:
        async with connected(running) as connection:
            session = await started(connection, turns=VAD)
            await say(connection, pcm[:half])
            until(lambda: running.metrics()["streamer_received_bytes_total"] == half)
            running.process.send_signal(signal.SIGTERM)
            await connection._connection.wait_closed()
            assert connection._connection.close_code == 1012
            return str(session.id)

    async def second(running: Running, id: str) -> list[Any]:
        async with connected(running, session=id) as connection:
            created = await connection.recv()
            assert created.session.streamer["position"] == half // 2
            await say(connection, pcm[half:])
            return await events(connection, count=2)

    with daemon(tmp_path, toy) as running:
        id = run(first(running))
        assert running.process.wait(60) == 0
    with daemon(tmp_path, toy) as running:
        found = run(second(running, id))
    texts = [event.transcript for event in found if event.type == PREFIX + "completed"]
    assert texts == [final["text"] for final in finals(toy, pcm)]


@pytest.mark.long
def test_nothing_is_told_twice_after_a_kill(toy: Path, tmp_path: Path) -> None:
    """The daemon falls back behind what it has told already, and is told by the client what that was."""
    pcm = speech(SAID).tobytes()
    start = len(speech("A")) * 2

    async def first(running: Running) -> tuple[str, list[Any]]:
        async with connected(running) as connection:
            session = await started(connection, turns=VAD)
            await say(connection, pcm[:start])
            until(lambda: running.metrics()["streamer_snapshots_total"] >= 1)
            await say(connection, pcm[start:])
            found = await events(connection, count=2)
            running.stop(signal.SIGKILL)
            return str(session.id), found

    async def second(running: Running, id: str, after: str) -> list[Any]:
        async with connected(running, session=id, after=after) as connection:
            created = await connection.recv()
            await say(connection, pcm[2 * created.session.streamer["position"] :])
            await say(connection, speech("A" + " " * 16).tobytes())
            return await events(connection)

    with daemon(tmp_path, toy, checkpoint_seconds=2) as running:
        id, before = run(first(running))
    with daemon(tmp_path, toy, checkpoint_seconds=2) as running:
        found = run(second(running, id, before[-1].event_id))
    done = [event for event in found if event.type == PREFIX + "completed"]
    assert [event.transcript for event in done] == ["A"]
    assert "".join(event.delta for event in found if event.type == PREFIX + "delta") == "A"
    items = {event.item_id for event in [*before, *found] if event.type == PREFIX + "completed"}
    assert len(items) == 3


def test_a_session_that_is_not_known(served: Running) -> None:
    async def talk(**query: str) -> tuple[str, int]:
        async with connected(served, **query) as connection:
            error = await connection.recv()
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            assert closed.value.rcvd is not None
            return error.error.code, closed.value.rcvd.code

    assert run(talk(session="sess_none")) == ("unknown_stream", 4404)
    assert run(talk(session="sess_none", after="x")) == ("bad_frame", 1007)
