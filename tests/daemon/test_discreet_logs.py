"""What people say and what machines measure stands in no log, at any level, whichever way it came; nor does a token."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import signal
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient

from streamer.engine.catalogue import resolve
from tests.cli.command import streamer
from tests.daemon.mosquitto import Broker, other
from tests.daemon.prometheus import wait
from tests.daemon.running import Running, daemon
from tests.daemon.talk import opened, transcribe, until_closed
from tests.daemon.test_broker import connected
from tests.serve.kserve.clients import free_port
from tests.serve.senders import request_v1, snappy
from tests.toys import speech

RATE = 8000
SAID = "ABBABAABBABBA"
VALUE = "98765.4321"
WORD = "Rumpelstilzchen"
#: What must not be there: the words, the values as numbers are often written, what a client named, and the sound.
PCM = np.concatenate([speech(SAID), np.zeros(RATE, np.int16)]).tobytes()
SOUND = [base64.b64encode(PCM[960:1000]).decode()[:40], PCM[960:1000].hex(), repr(PCM[960:980])[2:-1]]
HIDDEN = [SAID, "98765", WORD, WORD.lower(), *SOUND]
Road = Callable[[Running], Awaitable[Any]]


def body(running: Running, method: str, path: str, data: bytes, kind: str = "application/json", **more: str) -> int:
    return running.ask(method, path, data, {"Content-Type": kind, **more}).status


async def refused(running: Running, *frames: str | bytes, path: str = "/v1/stream") -> None:
    """Whatever the daemon makes of these frames."""
    async with websockets.connect(f"ws://127.0.0.1:{running.port}{path}", compression=None) as socket:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            for frame in frames:
                await socket.send(frame)
            async with asyncio.timeout(1):
                while True:
                    await socket.recv()


async def websocket(running: Running) -> None:
    events = await transcribe(running.url, [PCM])
    assert SAID in "".join(event.get("text", "") for event in events if event["type"] == "final")
    start = {"type": "start", "sample_rate": RATE}
    await refused(running, json.dumps({**start, "options": {"hotwords": [WORD]}}))
    await refused(running, json.dumps({**start, "options": {"hotwords": [WORD * 20], WORD: WORD}}))
    await refused(running, json.dumps({**start, WORD: WORD}), WORD)
    await refused(running, json.dumps(start), f'{{"type": "rows", "values": ["{WORD}", {VALUE}]}}')
    await refused(running, json.dumps(start), f"{WORD} {VALUE}")
    await refused(running, json.dumps(start), PCM[960:1001])
    await refused(running, json.dumps(start), f"{WORD}\n".encode() * 4000)


async def failing(running: Running) -> None:
    """A model whose run fails."""
    loud = np.full(4000, 32767, np.int16).tobytes()
    async with opened(running.url, model="trap") as (socket, _):
        await socket.send(PCM + loud)
        await until_closed(socket)


async def rows_over_http(running: Running) -> None:
    for text in (f"[{VALUE}, 1]", f'["{WORD}"]', f'{{"{WORD}": {VALUE}}}', f"[{VALUE}", WORD):
        body(running, "POST", "/v1/streams/rows?model=toy", text.encode())
    body(running, "POST", "/v1/streams/rows?model=toy", PCM[:1001], "application/octet-stream")


async def readings(running: Running) -> None:
    post = lambda path, text, kind: body(running, "POST", path, text.encode(), kind)  # noqa: E731
    for cell in (VALUE, f"{VALUE}x", WORD, f'"{VALUE}'):
        post("/v1/readings", f"time,level\n1,1\n2,{cell}\n", "text/csv")
        post("/v1/readings", f'{{"stream":"level","value":"{cell}"}}\n', "application/x-ndjson")
        post("/v1/readings", f'{{"stream":"level","time":"{cell}","value":{VALUE}}}\n', "application/x-ndjson")
        post("/write", f"level value={cell} 1\nlevel value={cell}", "text/plain")
    post("/v1/metrics", f'{{"resourceMetrics": "{WORD}{VALUE}"}}', "application/json")
    sent = snappy(request_v1(({"__name__": "level"}, [(float(VALUE), 1000)])))
    form = {"Content-Encoding": "snappy"}
    body(running, "POST", "/api/v1/write", sent, "application/x-protobuf", **form)
    body(running, "POST", "/api/v1/write", sent[:-3], "application/x-protobuf", **form)
    subscribe = '{"type":"subscribe","streams":["*"]}'
    values = [f'{{"type":"readings","readings":[{{"stream":"level","value":{one}}}]}}' for one in (VALUE, f'"{WORD}"')]
    await refused(running, subscribe, *values, f"{WORD}{VALUE}", path="/v1/sensors")


async def uploads(running: Running) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(PCM)
    for given in (file.getvalue(), file.getvalue()[:100], WORD.encode() * 100):
        part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
        text = part.format("model") + "whisper-1\r\n" + part.format("prompt") + f"{WORD}, {WORD * 9}\r\n"
        text += f'--x\r\nContent-Disposition: form-data; name="file"; filename="{WORD}.wav"\r\n\r\n'
        data = text.encode() + given + b"\r\n--x--\r\n"
        body(running, "POST", "/v1/audio/transcriptions", data, "multipart/form-data; boundary=x")


async def realtime(running: Running) -> None:
    form = {"format": {"type": "audio/pcm", "rate": RATE}, "transcription": {"model": "toy", "prompt": WORD}}
    session = {"type": "transcription", "audio": {"input": form}}
    update = json.dumps({"type": "session.update", "session": session})
    sound = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(PCM).decode()})
    broken = json.dumps({"type": "input_audio_buffer.append", "audio": f"{WORD}!"})
    await refused(running, update, sound, broken, WORD, path="/v1/realtime?intent=transcription")


async def kserve(running: Running) -> None:
    for data in ([float(VALUE)], [WORD], WORD):
        tensor = {"name": "pcm", "shape": [1, 1], "datatype": "INT16", "data": data}
        asked = {"inputs": [tensor], "parameters": {"sequence_id": 7, "sequence_start": True}}
        body(running, "POST", "/v2/models/toy/infer", json.dumps(asked).encode())


async def generated(running: Running) -> None:
    for prompt in (WORD, float(VALUE)):
        body(running, "POST", "/v1/generate", json.dumps({"model": "toy", "prompt": prompt, WORD: WORD}).encode())


async def vosk(running: Running) -> None:
    where = f"ws://127.0.0.1:{running.ports['vosk_port']}"
    phrases = json.dumps({"config": {"sample_rate": RATE, "phrase_list": [WORD * 9]}})
    for frames in ([phrases, PCM, '{"eof": 1}'], [WORD], [f'{{"{WORD}": {VALUE}}}'], [PCM[:11]]):
        async with websockets.connect(where) as socket:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                for frame in frames:
                    await socket.send(frame)
                async with asyncio.timeout(1):
                    while True:
                        await socket.recv()


async def wyoming(running: Running) -> None:
    form = {"rate": RATE, "width": 2, "channels": 1}
    async with AsyncTcpClient("127.0.0.1", running.ports["wyoming_port"], read_timeout=60) as client:
        asked = Transcribe(language="en").event()
        asked.data = {**(asked.data or {}), "hints": [WORD * 20]}
        await client.write_event(asked)
        await client.write_event(AudioStart(**form).event())
        await client.write_event(AudioChunk(audio=PCM, **form).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None and event.type not in ("transcript-stop", "error"):
            pass
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ports["wyoming_port"])
    writer.write(f'{{"type": "{WORD}", "data": {{"x": "{WORD}"}}}}\n{WORD} {VALUE}\n'.encode())
    await reader.read()
    writer.close()


ROADS: list[Road] = [
    websocket,
    failing,
    rows_over_http,
    readings,
    uploads,
    realtime,
    kserve,
    generated,
    vosk,
    wyoming,
]


class Logging(Running):
    """With ports of other protocols; what it logged since the last look."""

    ports: dict[str, int]

    def logged(self) -> str:
        return self.errors.read_text("utf-8")


@pytest.fixture(scope="module")
def talkative(toy: Path, trap: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon that logs all it has to say."""
    ports = {"vosk_port": free_port(), "wyoming_port": free_port(), "kserve_grpc_port": free_port()}
    folder = tmp_path_factory.mktemp("talkative")
    settings = {"log_level": "debug", "log_format": "json", "checkpoint_seconds": 0.2, **ports}
    running = Logging(folder, toy, trap, resolve("forecast-online"), **settings)
    running.ports = ports
    yield running
    running.stop(signal.SIGKILL)


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
def test_nothing_that_was_sent_stands_in_the_log(road: Road, talkative: Logging) -> None:
    before = len(talkative.logged())
    asyncio.run(road(talkative))
    assert found(talkative.logged()[before:]) == []


def found(text: str) -> list[str]:
    """Lines with something that is to be hidden."""
    return [line for line in text.splitlines() if any(hidden in line for hidden in HIDDEN)]


def counted(running: Running) -> float:
    """Messages of the broker that were worked off."""
    return sum(count for name, count in running.metrics().items() if name.startswith("streamer_mqtt_messages_total"))


@pytest.mark.long
def test_nor_do_readings_from_a_broker(broker: Broker, tmp_path: Path) -> None:
    settings = {"mqtt_host": "127.0.0.1", "mqtt_port": broker.port, "mqtt_topics": "level, tele/+ time=t v"}
    settings |= {"mqtt_username": "me", "mqtt_password": WORD, "log_level": "debug", "log_format": "json"}

    async def send(running: Running) -> None:
        async with other(broker.port) as client:
            for payload in (VALUE, f"{VALUE}x", WORD, f'"{VALUE}'):
                await client.publish("level", payload, 1)
                await client.publish("tele/x", f'{{"t": "{WORD}", "v": {VALUE}}}', 1)
        wait(lambda: counted(running) == 8)

    with daemon(tmp_path / "d", resolve("forecast-online"), **settings) as running:
        connected(running)  # what is sent before it has subscribed is not for it
        asyncio.run(send(running))
        text = running.errors.read_text("utf-8")
        assert "an MQTT message can't be read" in text
        assert found(text) == []


@pytest.mark.long
def test_nor_does_a_token(toy: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    secret = streamer("token", "add", "me", "--scope", "admin", "--file", file).stdout.decode().strip()
    with daemon(tmp_path / "d", toy, token_file=file, log_level="debug", log_format="json") as running:
        for token in (secret, f"{WORD}-{secret}"):
            for way in (f"Bearer {token}", f"Basic {base64.b64encode(f'me:{token}'.encode()).decode()}"):
                running.ask("GET", "/v1/sessions", headers={"Authorization": way})
            running.ask("GET", f"/v1/sessions?token={token}")

            async def offered(token: str = token) -> None:
                protocols = ["streamer", f"streamer.token.{token}"]
                with contextlib.suppress(websockets.InvalidStatus):
                    async with websockets.connect(running.url, subprotocols=protocols) as socket:  # type: ignore[arg-type]
                        await socket.send("{")
                        await until_closed(socket)

            asyncio.run(offered())
        text = running.errors.read_text("utf-8")
        assert "a wrong token" in text
        encoded = base64.b64encode(f"me:{secret}".encode()).decode()
        assert [hidden for hidden in (secret, encoded, WORD) if hidden in text] == []


@pytest.mark.parametrize("asked", [True, False])
def test_words_stand_there_where_they_are_asked_for(asked: bool, toy: Path, tmp_path: Path) -> None:
    settings = {"log_level": "debug", "log_format": "json", "log_text": asked}
    with daemon(tmp_path / "d", toy, **settings) as running:
        asyncio.run(transcribe(running.url, [PCM]))
        records = [json.loads(line) for line in running.errors.read_text("utf-8").splitlines()]
    said = [record for record in records if record["event"] == "final"]
    assert said
    assert [record["text"] for record in said if record.get("text")] == ([SAID] if asked else [])
    assert all(record["level"] == "debug" and record["stream"] for record in said)


def test_nobody_reads_words_at_info(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path / "d", toy, log_text=True) as running:
        asyncio.run(transcribe(running.url, [PCM]))
        assert SAID not in running.errors.read_text("utf-8")
