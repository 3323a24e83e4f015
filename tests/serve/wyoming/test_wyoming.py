"""Wyoming, as its own package speaks it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from tests.daemon.in_process import run_in_process
from tests.daemon.running import Running, daemon
from tests.serve.kserve.clients import free_port
from tests.serve.waiting import until
from tests.toys import samples, speech, toy_model

RATE = 8000
SAID = "AB  AAB" + " " * 16 + "BBA"


@pytest.fixture(scope="module")
def models(toy: Path, trap: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """``worded``: every letter is a word, so that words are stable before their utterance ends."""
    folder = tmp_path_factory.mktemp("worded")
    return [toy, trap, toy_model(folder, name="worded", options={"units": "words"})]


@pytest.fixture(scope="module")
def served(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    settings = {"wyoming_port": port, "wyoming_languages": "en,de", "max_protocol_connections": 8}
    with daemon(tmp_path_factory.mktemp("wyoming"), *models, **settings) as running:
        running.wyoming_port = port  # type: ignore[attr-defined]
        yield running


@asynccontextmanager
async def connected(running: Running) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", running.wyoming_port, read_timeout=60) as client:  # type: ignore[attr-defined]
        yield client


def text_of(model: Path, pcm: bytes) -> str:
    events = run_in_process(model, pcm, RATE)
    return " ".join(event["text"] for event in events if event["type"] == "final" and event["text"])


async def say(client: AsyncTcpClient, pcm: bytes, size: int = 2048, rate: int = RATE, channels: int = 1) -> None:
    form = {"rate": rate, "width": 2, "channels": channels}
    await client.write_event(AudioStart(**form).event())
    for at in range(0, len(pcm), size):
        await client.write_event(AudioChunk(audio=pcm[at : at + size], **form).event())
    await client.write_event(AudioStop().event())


async def answered(client: AsyncTcpClient, last: str = "transcript-stop") -> list[Event]:
    events: list[Event] = []
    while not events or events[-1].type not in (last, "error"):
        event = await client.read_event()
        assert event is not None, [e.type for e in events]
        events.append(event)
    return events


async def heard(running: Running, pcm: bytes, name: str | None = None, **more: Any) -> list[Event]:
    async with connected(running) as client:
        await client.write_event(Transcribe(name=name, language="en").event())
        await say(client, pcm, **more)
        return await answered(client)


def whole(events: list[Event]) -> str:
    (found,) = (Transcript.from_event(event).text for event in events if Transcript.is_type(event.type))
    return found


def chunks(events: list[Event]) -> list[str]:
    return [TranscriptChunk.from_event(event).text for event in events if TranscriptChunk.is_type(event.type)]


def test_describe(served: Running) -> None:
    async def ask() -> Info:
        async with connected(served) as client:
            await client.write_event(Describe().event())
            return Info.from_event(await client.read_event())

    (program,) = asyncio.run(ask()).asr
    assert [model.name for model in program.models] == ["toy", "trap", "worded"]
    assert program.models[0].languages == ["en", "de"]
    assert program.supports_transcript_streaming
    assert program.requires_external_vad
    assert program.installed


def test_ping(served: Running) -> None:
    async def ask() -> Pong:
        async with connected(served) as client:
            await client.write_event(Ping("are you there?").event())
            return Pong.from_event(await client.read_event())

    assert asyncio.run(ask()).text == "are you there?"


@pytest.mark.parametrize("size", [2, 2048, 10**6])
def test_an_utterance(served: Running, toy: Path, size: int) -> None:
    pcm = (speech(SAID) if size > 2 else speech("A")[:300]).tobytes()
    events = asyncio.run(heard(served, pcm, size=size))
    assert events[0].type == "transcript-start"
    assert [event.type for event in events[-2:]] == ["transcript", "transcript-stop"]
    assert whole(events) == "".join(chunks(events)) == text_of(toy, pcm)
    assert events[0].data == {"language": "en"}


def test_words_are_told_before_the_utterance_ends(served: Running, models: list[Path]) -> None:
    pcm = speech("ABABAB").tobytes()

    async def ask() -> tuple[list[str], list[Event]]:
        async with connected(served) as client:
            await client.write_event(Transcribe(name="worded").event())
            form = {"rate": RATE, "width": 2, "channels": 1}
            await client.write_event(AudioStart(**form).event())
            await client.write_event(AudioChunk(audio=pcm, **form).event())
            early = [event.type for event in await answered(client, "transcript-chunk")]
            await client.write_event(AudioStop().event())
            return early, await answered(client)

    early, rest = asyncio.run(ask())
    assert early == ["transcript-start", "transcript-chunk"]
    assert whole(rest) == text_of(models[2], pcm)


def test_one_utterance_after_the_other(served: Running, toy: Path) -> None:
    async def ask() -> list[str]:
        found = []
        async with connected(served) as client:
            for said in ("AB", "BBA", ""):
                await say(client, speech(said).tobytes())
                found.append(whole(await answered(client)))
        return found

    assert asyncio.run(ask()) == ["AB", "BBA", ""]


def test_two_channels_and_another_rate(served: Running) -> None:
    pcm = np.repeat(speech("AB"), 2)
    stereo = np.stack([pcm, pcm], axis=1)
    assert whole(asyncio.run(heard(served, stereo.tobytes(), rate=2 * RATE, channels=2))) == "AB"


def test_a_chunk_without_a_start_is_one(served: Running) -> None:
    async def ask() -> list[Event]:
        async with connected(served) as client:
            await client.write_event(AudioChunk(RATE, 2, 1, speech("AB").tobytes()).event())
            await client.write_event(AudioStop().event())
            return await answered(client)

    assert whole(asyncio.run(ask())) == "AB"


def test_hints_that_a_model_can_not_use_are_left_aside(served: Running) -> None:
    async def ask() -> list[Event]:
        async with connected(served) as client:
            await client.write_event(Transcribe(transcript_names=["Ada"], transcript_terms=["b"]).event())
            await say(client, speech("AB").tobytes())
            return await answered(client)

    assert whole(asyncio.run(ask())) == "AB"


def test_unknown_events_are_read_over(served: Running) -> None:
    async def ask() -> list[Event]:
        async with connected(served) as client:
            await client.write_event(Event("select-program", {"name": "streamer"}))
            await client.write_event(Event("from-the-future", {"a": 1}, b"payload"))
            await say(client, speech("AB").tobytes())
            return await answered(client)

    assert whole(asyncio.run(ask())) == "AB"


def start(**more: Any) -> Event:
    return Event("audio-start", {"rate": RATE, "width": 2, "channels": 1} | more)


def chunk(payload: bytes, **more: Any) -> Event:
    return Event("audio-chunk", {"rate": RATE, "width": 2, "channels": 1} | more, payload)


@pytest.mark.parametrize(
    ("events", "code", "says"),
    [
        ([start(rate=100)], "rate", "100"),
        ([start(rate="fast")], "bad_frame", "rate"),
        ([chunk(b"\0\0\0\0", width=4)], "bad_audio", "width"),
        ([chunk(b"\0\0\0")], "bad_audio", "whole samples"),
        ([chunk(b"fLaC" + bytes(4000))], "not_pcm", "FLAC"),
        ([start(), chunk(b"\0\0", rate=16000)], "bad_audio", "audio-start"),
        ([Transcribe(name="whisper").event(), start()], "unknown_model", "toy, trap, worded"),
        ([chunk(bytes(2**20 + 2))], "too_long", "1048576"),
        (
            [Transcribe(name="trap").event(), start(), chunk(np.full(RATE, 32767, np.int16).tobytes())],
            "model_failed",
            "",
        ),
    ],
)
def test_what_can_not_be_done_is_an_error_and_the_end(
    served: Running, events: list[Event], code: str, says: str
) -> None:
    async def ask() -> tuple[Error, Event | None]:
        async with connected(served) as client:
            for event in events:
                await client.write_event(event)
            error = (await answered(client, "error"))[-1]
            return Error.from_event(error), await client.read_event()

    error, rest = asyncio.run(ask())
    assert (error.code, rest) == (code, None)
    assert says in error.text


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\n",
        b"[]\n",
        b'{"type": 1}\n',
        b'{"type": "ping", "data_length": 100000}\n',
        b'{"type": "ping", "payload_length": -1}\n',
        b'{"type": "ping", "data_length": 2}\n[]',
        b"\xff\xfe\n",
        b"[" * 60000 + b"\n",
        b"x" * 70_000,
    ],
)
def test_damage_is_an_error(served: Running, line: bytes) -> None:
    async def ask() -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.wyoming_port)  # type: ignore[attr-defined]
        writer.write(line)
        header = json.loads(await reader.readline())
        assert header["type"] == "error"
        data = json.loads(await reader.readexactly(header["data_length"]))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return data

    assert asyncio.run(ask())["code"] in ("bad_json", "bad_frame", "too_long")


def test_events_in_any_pieces(served: Running) -> None:
    """The data in the header, behind it, and both, a byte at a time."""

    async def ask() -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.wyoming_port)  # type: ignore[attr-defined]
        texts = []
        for event in (
            b'{"type":"ping","data":{"text":"a"}}\n',
            b'{"type":"ping","data_length":12}\n{"text":"a"}',
            b'{"type":"ping","data":{"text":"b"},"data_length":12,"payload_length":3}\n{"text":"a"}xyz',
        ):
            for byte in event:
                writer.write(bytes([byte]))
                await writer.drain()
            header = json.loads(await reader.readline())
            texts.append(await reader.readexactly(header["data_length"]))
        writer.close()
        await writer.wait_closed()
        return texts

    assert asyncio.run(ask()) == [b'{"text": "a"}'] * 3


def test_many_are_each_their_own(served: Running, toy: Path) -> None:
    pcms = [samples(seed, 2 * RATE).tobytes() for seed in range(4)]

    async def ask() -> list[list[Event]]:
        return await asyncio.gather(*(heard(served, pcm) for pcm in pcms))

    assert [whole(events) for events in asyncio.run(ask())] == [text_of(toy, pcm) for pcm in pcms]


def idle(running: Running) -> bool:
    page = running.metrics()
    states = [value for name, value in page.items() if name.startswith("streamer_sessions{")]
    return sum(states) == 0 == page['streamer_protocol_connections{protocol="wyoming"}']


def test_who_leaves_in_the_middle_leaves_nothing(served: Running) -> None:
    async def leave() -> None:
        async with connected(served) as client:
            await client.write_event(start())
            await client.write_event(chunk(speech("AB").tobytes()))
            await client.read_event()

    asyncio.run(leave())
    until(lambda: idle(served))


@pytest.mark.long
def test_who_does_not_read_is_dropped(toy: Path, tmp_path: Path) -> None:
    port = free_port()
    with daemon(tmp_path, toy, wyoming_port=port, send_seconds=0.5, linger_seconds=0.5) as running:

        async def talk() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            ping = Ping("x" * 60_000).event()
            data = json.dumps(ping.data).encode()
            event = json.dumps({"type": "ping", "data_length": len(data)}).encode() + b"\n" + data
            with suppress(ConnectionError):
                async with asyncio.timeout(60):
                    while True:
                        writer.write(event)
                        await writer.drain()
            assert not reader.at_eof()
            writer.transport.abort()

        asyncio.run(talk())
        until(lambda: running.metrics()['streamer_protocol_connections{protocol="wyoming"}'] == 0)
        assert running.metrics()['streamer_bad_input_total{reason="not_reading"}'] == 1
        assert "Traceback" not in running.errors.read_text()


def test_a_connection_too_many_is_closed(served: Running) -> None:
    until(lambda: idle(served))

    async def crowd() -> Event | None:
        held = [AsyncTcpClient("127.0.0.1", served.wyoming_port) for _ in range(8)]  # type: ignore[attr-defined]
        for client in held:
            await client.connect()
            await client.write_event(Ping().event())
            assert (await client.read_event()) is not None
        try:
            async with connected(served) as client:
                return await client.read_event()
        finally:
            for client in held:
                await client.disconnect()

    with suppress(ConnectionResetError):
        assert asyncio.run(crowd()) is None
    until(lambda: idle(served))


@pytest.mark.long
def test_going_down_tells_who_is_connected(toy: Path, tmp_path: Path) -> None:
    port = free_port()
    with daemon(tmp_path, toy, wyoming_port=port) as running:
        running.wyoming_port = port  # type: ignore[attr-defined]

        async def told() -> Event:
            async with connected(running) as client:
                await client.write_event(start())
                await client.write_event(chunk(speech("AB").tobytes()))
                await client.read_event()
                running.process.send_signal(signal.SIGTERM)
                return (await answered(client, "error"))[-1]

        assert Error.from_event(asyncio.run(told())).code == "draining"
        assert running.process.wait(60) == 0


def test_it_is_found_in_the_network(toy: Path, tmp_path: Path) -> None:
    """By the library that Home Assistant looks with, on the loopback interface."""
    from zeroconf.asyncio import AsyncZeroconf

    port = free_port()
    with daemon(tmp_path, toy, wyoming_port=port, wyoming_zeroconf=f"streamer {port}") as running:

        async def look() -> Any:
            found = AsyncZeroconf(interfaces=["127.0.0.1"])
            try:
                name = f"streamer {port}._wyoming._tcp.local."
                return await found.async_get_service_info("_wyoming._tcp.local.", name, timeout=20_000)
            finally:
                await found.async_close()

        service = asyncio.run(look())
        if service is None and "not announced" in running.errors.read_text():
            pytest.skip("this machine takes no multicast")
        assert service is not None
        assert (service.port, service.parsed_addresses()) == (port, ["127.0.0.1"])
