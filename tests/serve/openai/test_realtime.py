"""``/v1/realtime`` as OpenAI's own client speaks it, and vLLM's dialect."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import websockets
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

from tests.daemon.in_process import run_in_process
from tests.daemon.running import Running, daemon
from tests.serve.waiting import until
from tests.toys import samples, speech

RATE = 8000
SAID = "AB  AAB" + " " * 16 + "BBA" + " " * 16
PREFIX = "conversation.item.input_audio_transcription."


def client_of(running: Running) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0)


@asynccontextmanager
async def connected(running: Running, **query: str) -> AsyncIterator[Any]:
    asked = {"intent": "transcription", **query}
    async with client_of(running) as client, client.realtime.connect(extra_query=asked) as connection:
        yield connection


def settings(model: str = "toy", turns: Any = None, rate: int = RATE, **more: Any) -> dict[str, Any]:
    form = {"type": "audio/pcm", "rate": rate}
    audio = {"input": {"format": form, "transcription": {"model": model}, "turn_detection": turns}}
    return {"type": "transcription", "audio": audio, **more}


VAD = {"type": "server_vad"}


async def started(connection: Any, **given: Any) -> Any:
    created = await connection.recv()
    assert created.type == "session.created"
    await connection.session.update(session=settings(**given))
    updated = await connection.recv()
    assert updated.type == "session.updated", updated
    return updated.session


async def say(connection: Any, pcm: bytes, size: int = 1600) -> None:
    for at in range(0, len(pcm), size):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + size]).decode())


async def events(connection: Any, last: str = PREFIX + "completed", count: int = 1) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(60):
        while sum(event.type == last for event in found) < count:
            found.append(await connection.recv())
            assert found[-1].type != "error" or last == "error", found[-1]
    return found


def short(found: list[Any]) -> list[str]:
    return [event.type.removeprefix(PREFIX) for event in found]


def finals(model: Path, pcm: bytes, rate: int = RATE) -> list[dict[str, Any]]:
    return [event for event in run_in_process(model, pcm, rate) if event["type"] == "final" and event["text"]]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


# -- the client commits -----------------------------------------------------------------------------------------------


def test_what_is_committed_is_an_item(served: Running, toy: Path) -> None:
    pcm = speech("AB").tobytes()

    async def talk() -> list[list[Any]]:
        async with connected(served) as connection:
            await started(connection)
            found = []
            for _ in range(2):
                await say(connection, pcm)
                await connection.input_audio_buffer.commit()
                found.append(await events(connection))
        return found

    first, second = run(talk())
    committed = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert [kind for kind in short(first) if kind != "delta"] == [*committed, "completed"]
    done = first[-1]
    assert done.transcript == finals(toy, pcm)[0]["text"] == "AB"
    assert "".join(event.delta for event in first if event.type == PREFIX + "delta") == "AB"
    assert done.usage.type == "duration"
    assert done.usage.seconds == 1
    assert {event.item_id for event in first if hasattr(event, "item_id")} == {done.item_id}
    items = [event for event in second if event.type == "conversation.item.added"]
    assert items[0].previous_item_id == done.item_id
    assert items[0].item.id == second[-1].item_id != done.item_id
    assert items[0].item.content[0].type == "input_audio"


def test_words_are_told_while_they_are_said(served: Running) -> None:
    async def talk() -> tuple[list[Any], list[Any]]:
        async with connected(served) as connection:
            await started(connection, model="worded")
            await say(connection, speech("ABABAB").tobytes())
            early = await events(connection, PREFIX + "delta")
            await connection.input_audio_buffer.commit()
            return early, await events(connection)

    early, rest = run(talk())
    told = "".join(event.delta for event in [*early, *rest] if event.type == PREFIX + "delta")
    assert told == rest[-1].transcript == "A B A B A B"
    assert rest[-1].item_id == early[-1].item_id


def test_several_utterances_in_one_item(served: Running, toy: Path) -> None:
    pcm = speech(SAID).tobytes()

    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await started(connection)
            await say(connection, pcm)
            await connection.input_audio_buffer.commit()
            return await events(connection)

    found = run(talk())
    expected = finals(toy, pcm)
    assert len(expected) == 2
    assert found[-1].transcript == " ".join(final["text"] for final in expected)
    assert "".join(event.delta for event in found if event.type == PREFIX + "delta") == found[-1].transcript


def test_commit_and_clear_without_sound(served: Running) -> None:
    async def talk() -> tuple[Any, Any, list[Any]]:
        async with connected(served) as connection:
            await started(connection)
            await connection.input_audio_buffer.commit(event_id="mine")
            error = await connection.recv()
            await say(connection, speech("A").tobytes())
            await connection.input_audio_buffer.clear()
            (cleared,) = await events(connection, "input_audio_buffer.cleared")
            await say(connection, speech("BB").tobytes())
            await connection.input_audio_buffer.commit()
            return error, cleared, await events(connection)

    error, _, found = run(talk())
    assert (error.error.code, error.error.event_id) == ("input_audio_buffer_commit_empty", "mine")
    assert found[-1].transcript == "BB"


def test_probabilities_of_words_on_request(served: Running) -> None:
    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await started(connection, include=["item.input_audio_transcription.logprobs"])
            await say(connection, speech("AB").tobytes())
            await connection.input_audio_buffer.commit()
            return await events(connection)

    (word,) = run(talk())[-1].logprobs
    assert (word.token, bytes(word.bytes)) == ("AB", b"AB")
    assert word.logprob <= 0


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephone_sound(served: Running, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audioop = pytest.importorskip("audioop")
    encode = audioop.lin2ulaw if kind == "audio/pcmu" else audioop.lin2alaw

    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await connection.recv()
            given = settings()
            given["audio"]["input"]["format"] = {"type": kind}
            await connection.session.update(session=given)
            assert (await connection.recv()).session.audio.input.format.type == kind
            await say(connection, encode(speech("ABBA").tobytes(), 2))
            await connection.input_audio_buffer.commit()
            return await events(connection)

    assert run(talk())[-1].transcript == "ABBA"


# -- the stream decides -----------------------------------------------------------------------------------------------


def test_turn_detection(served: Running, toy: Path) -> None:
    pcm = speech(SAID).tobytes()

    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await started(connection, turns=VAD)
            await say(connection, pcm)
            return await events(connection, count=2)

    found = run(talk())
    expected = finals(toy, pcm)
    done = [event for event in found if event.type == PREFIX + "completed"]
    assert [event.transcript for event in done] == [final["text"] for final in expected]
    began = [event for event in found if event.type == "input_audio_buffer.speech_started"]
    ended = [event for event in found if event.type == "input_audio_buffer.speech_stopped"]
    assert [event.audio_end_ms for event in ended] == [round(1000 * final["end"]) for final in expected]
    assert [event.item_id for event in began] == [event.item_id for event in ended] == [event.item_id for event in done]
    assert all(0 <= a.audio_start_ms <= b.audio_end_ms for a, b in zip(began, ended, strict=True))
    added = [event for event in found if event.type == "conversation.item.added"]
    assert [event.previous_item_id for event in added] == [None, done[0].item_id]
    one = [kind for kind in short(found)[: found.index(done[0]) + 1] if kind != "delta"]
    buffer = "input_audio_buffer."
    assert one == [
        buffer + "speech_started",
        buffer + "speech_stopped",
        buffer + "committed",
        "conversation.item.added",
        "conversation.item.done",
        "completed",
    ]


def test_it_is_on_by_default_at_openais_rate(served: Running) -> None:
    pcm = np.repeat(speech("AB" + " " * 20), 3)

    async def talk() -> tuple[Any, list[Any]]:
        async with connected(served) as connection:
            created = await connection.recv()
            await say(connection, pcm.tobytes(), 4800)
            return created.session, await events(connection)

    session, found = run(talk())
    assert session.type == "transcription"
    assert session.audio.input.format.rate == 24000
    assert session.audio.input.turn_detection.type == "server_vad"
    assert found[-1].transcript == "AB"


def test_silence_that_ends_an_utterance_is_the_clients_choice(served: Running) -> None:
    pcm = speech("AB" + " " * 6 + "BA" + " " * 4).tobytes()  # 1.2 s between the two

    async def talk(ms: int) -> list[str]:
        async with connected(served) as connection:
            await started(connection, turns={"type": "server_vad", "silence_duration_ms": ms})
            await say(connection, pcm)
            await connection.input_audio_buffer.commit()
            count = 2 if ms < 1000 else 1
            return [e.transcript for e in await events(connection, count=count) if e.type == PREFIX + "completed"]

    assert run(talk(500))[:2] == ["AB", "BA"]
    assert run(talk(5000)) == ["ABBA"]


def test_a_commit_ends_the_utterance_and_times_go_on(served: Running) -> None:
    pcm = speech("AB").tobytes()

    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await started(connection, turns=VAD)
            found = []
            for sound in (pcm, bytes(1600), pcm):
                await say(connection, sound)
                await connection.input_audio_buffer.commit()
                found += await events(connection)
        return found

    found = run(talk())
    done = [event for event in found if event.type == PREFIX + "completed"]
    assert [event.transcript for event in done] == ["AB", "", "AB"]
    assert len({event.item_id for event in done}) == 3
    first, last = (event for event in found if event.type == "input_audio_buffer.speech_started")
    assert last.audio_start_ms - first.audio_start_ms == pytest.approx(1000 * (len(pcm) + 1600) / 2 / RATE, abs=2)
    added = [event for event in found if event.type == "conversation.item.added"]
    assert [event.previous_item_id for event in added] == [None, done[0].item_id, done[1].item_id]


def test_many_are_each_their_own(served: Running, toy: Path) -> None:
    pcms = [samples(seed, 2 * RATE).tobytes() for seed in range(4)]

    async def talk(pcm: bytes) -> str:
        async with connected(served) as connection:
            await started(connection)
            await say(connection, pcm)
            await connection.input_audio_buffer.commit()
            return str((await events(connection))[-1].transcript)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(talk, pcms))

    assert run(all_of_them()) == [" ".join(f["text"] for f in finals(toy, pcm)) for pcm in pcms]


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_errors_leave_the_session_as_it_was(served: Running) -> None:
    bad = [
        ("unknown_event", {"type": "response.create"}),
        ("invalid_value", {"type": "session.update", "session": {"type": "realtime"}}),
        ("missing_value", {"type": "session.update"}),
        ("model_not_found", {"type": "session.update", "session": settings(model="gpt-9")}),
        ("invalid_value", {"type": "session.update", "session": settings(turns={"type": "magic"})}),
        ("invalid_value", {"type": "session.update", "session": settings(rate=-1)}),
        ("missing_value", {"type": "input_audio_buffer.append"}),
        ("invalid_value", {"type": "input_audio_buffer.append", "audio": "?!"}),
        ("invalid_value", {"type": "input_audio_buffer.append", "audio": "AAAA"}),
        ("invalid_value", {"type": ["append"]}),
    ]

    async def talk() -> tuple[list[str], str]:
        async with connected(served) as connection:
            await started(connection)
            codes = []
            for _, event in bad:
                await connection.send(event)
                codes.append((await connection.recv()).error.code)
            long = {"type": "session.update", "session": settings(note="x" * 20_000)}
            deep = '{"type": "session.update", "session": {"x": ' + '{"a":' * 3000 + "1" + "}" * 3002
            for message in ("hello", b"\0\0", "[" * 10_000, deep, '{"type": 1e999}', json.dumps(long)):
                await connection._connection.send(message)
                assert (await connection.recv()).error.code in ("invalid_json", "invalid_value", "too_long")
            await connection._connection.send('{"type": "session.update", "session": {"note": "\\ud800"}}')
            assert (await connection.recv()).session.note == "\ud800"  # half a surrogate pair comes back as it is
            await say(connection, speech("AB").tobytes())
            await connection.input_audio_buffer.commit()
            return codes, (await events(connection))[-1].transcript

    codes, text = run(talk())
    assert codes == [code for code, _ in bad]
    assert text == "AB"


def test_what_is_set_can_not_change_under_the_sound(served: Running) -> None:
    async def talk() -> list[Any]:
        async with connected(served) as connection:
            await started(connection, turns=VAD)
            await say(connection, speech("A").tobytes())
            await connection.session.update(session=settings(turns=VAD))
            await events(connection, "session.updated")
            await connection.session.update(session=settings(model="trap", turns=VAD))
            return await events(connection, "error")

    assert run(talk())[-1].error.code == "session_in_use"


def test_a_stream_that_fails_closes_with_the_reason(served: Running) -> None:
    async def talk() -> tuple[Any, Any]:
        async with connected(served) as connection:
            await started(connection, model="trap")
            await say(connection, np.full(RATE, 32767, np.int16).tobytes(), 32_000)
            error = (await events(connection, "error"))[-1]
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
            return error.error, closed.value.rcvd

    error, closed = run(talk())
    assert (error.code, closed.code) == ("model_failed", 1011)


def test_no_slot_closes_with_the_reason(toy: Path, tmp_path: Path) -> None:
    async def talk(running: Running) -> int:
        async with connected(running) as first, connected(running) as second:
            await started(first)
            await started(second)
            await say(first, speech("A").tobytes())
            until(lambda: running.metrics()['streamer_sessions{model="toy",state="active"}'] == 1)
            await say(second, speech("A").tobytes()[:1600])
            assert (await events(second, "error"))[-1].error.code == "capacity"
            with pytest.raises(ConnectionClosed) as closed:
                await second.recv()
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code

    with daemon(tmp_path, toy, capacity=1) as running:
        assert run(talk(running)) == 1013


def test_who_leaves_by_the_door_leaves_nothing(served: Running) -> None:
    async def talk() -> None:
        for turns in (None, VAD):
            async with connected(served) as connection:
                await started(connection, turns=turns)
                await say(connection, speech("AB").tobytes())

    def idle() -> bool:
        page = served.metrics()
        states = [value for name, value in page.items() if name.startswith("streamer_sessions{")]
        return sum(states) == 0 == page['streamer_protocol_connections{protocol="realtime"}']

    run(talk())
    until(idle)


def test_browsers_find_their_subprotocol(served: Running) -> None:
    async def talk() -> str | None:
        url = f"ws://127.0.0.1:{served.port}/v1/realtime?intent=transcription"
        async with websockets.connect(url, subprotocols=["realtime", "openai-insecure-api-key.none"]) as connection:
            return connection.subprotocol

    assert run(talk()) == "realtime"


# -- coming back ------------------------------------------------------------------------------------------------------


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


# -- vLLM's dialect ---------------------------------------------------------------------------------------------------


async def flat(running: Running, pcm: bytes, model: str = "worded") -> list[dict[str, Any]]:
    """The steps of vLLM's example of a client."""
    async with websockets.connect(f"ws://127.0.0.1:{running.port}/v1/realtime") as connection:
        created = json.loads(await connection.recv())
        assert created["type"] == "session.created"
        assert created["id"]
        await connection.send(json.dumps({"type": "session.update", "model": model}))
        await connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        for at in range(0, len(pcm), 4096):
            audio = base64.b64encode(pcm[at : at + 4096]).decode()
            await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await connection.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        found = []
        async with asyncio.timeout(60):
            while not found or found[-1]["type"] == "transcription.delta":
                found.append(json.loads(await connection.recv()))
        return found


def test_vllms_dialect(served: Running) -> None:
    found = run(flat(served, np.repeat(speech("AB" + " " * 16 + "BA"), 2).tobytes()))
    assert found[-1]["type"] == "transcription.done"
    assert found[-1]["text"] == "".join(event["delta"] for event in found[:-1]) == "A B B A"
    assert len(found) > 3


def test_vllms_dialect_has_errors_of_its_own(served: Running) -> None:
    (error,) = run(flat(served, b"", "gpt-9"))[:1]
    assert (error["type"], error["code"]) == ("error", "model_not_found")
    assert isinstance(error["error"], str)


def test_the_route_can_be_switched_off(toy: Path, tmp_path: Path) -> None:
    async def talk(running: Running) -> None:
        async with connected(running):
            pass

    with daemon(tmp_path, toy, openai=False) as running:
        with pytest.raises((openai.OpenAIError, websockets.exceptions.InvalidStatus)) as refused:
            run(talk(running))
        assert "404" in str(refused.value)
