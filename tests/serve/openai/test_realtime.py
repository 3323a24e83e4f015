"""``/v1/realtime`` as OpenAI's own client speaks it."""

from __future__ import annotations

import asyncio
import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import websockets
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
    short,
    started,
)
from tests.serve.waiting import until
from tests.toys import samples, speech

# -- the client commits -----------------------------------------------------------------------------------------------


@pytest.mark.long
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


@pytest.mark.long
def test_who_does_not_read_is_dropped(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, send_seconds=0.5, linger_seconds=0.5) as running:

        async def talk() -> None:
            url = f"ws://127.0.0.1:{running.port}/v1/realtime"
            connection = await websockets.connect(url, max_queue=1, close_timeout=0.1, ping_interval=None)
            update = json.dumps({"type": "session.update", "session": settings(note="x" * 15_000)})
            with suppress(ConnectionClosed):
                async with asyncio.timeout(60):
                    while True:
                        await connection.send(update)
            connection.transport.abort()

        asyncio.run(talk())
        until(lambda: running.metrics()['streamer_protocol_connections{protocol="realtime"}'] == 0)
        assert running.metrics()['streamer_bad_input_total{reason="not_reading"}'] == 1


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


def test_the_route_can_be_switched_off(toy: Path, tmp_path: Path) -> None:
    async def talk(running: Running) -> None:
        async with connected(running):
            pass

    with daemon(tmp_path, toy, openai=False) as running:
        with pytest.raises((openai.OpenAIError, websockets.exceptions.InvalidStatus)) as refused:
            run(talk(running))
        assert "404" in str(refused.value)
