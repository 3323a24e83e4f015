"""Vosk's WebSocket protocol, as its published client speaks it: a message and an answer in turn."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from tests.daemon.in_process import run_in_process
from tests.daemon.running import Running, daemon
from tests.serve.kserve.clients import free_port
from tests.serve.vosk.conftest import VoskDaemon
from tests.serve.waiting import until
from tests.toys import level, samples, speech

RATE = 8000
SAID = "AB  AAB" + " " * 16 + "BBA"
EOF = '{"eof" : 1}'


def finals(model: Path, pcm: bytes) -> list[dict[str, Any]]:
    return [event for event in run_in_process(model, pcm, RATE) if event["type"] == "final" and event["text"]]


async def published_client(url: str, file: Path) -> list[dict[str, Any]]:
    """The steps of test.py of vosk-server: configuration, a fifth of a second at a time, the end; all answers."""
    answers = []
    async with websockets.connect(url) as connection:
        with wave.open(str(file), "rb") as recording:
            await connection.send(f'{{ "config" : {{ "sample_rate" : {recording.getframerate()} }} }}')
            step = int(recording.getframerate() * 0.2)
            while data := recording.readframes(step):
                await connection.send(data)
                answers.append(json.loads(await connection.recv()))
        await connection.send(EOF)
        answers.append(json.loads(await connection.recv()))
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd.code == 1000
    return answers


def wav(path: Path, pcm: np.ndarray[Any, Any], rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


async def talk(url: str, *messages: bytes | str) -> list[dict[str, Any]]:
    """An answer to each message that is to have one."""
    answers = []
    async with websockets.connect(url) as connection:
        for message in messages:
            await connection.send(message)
            if not (isinstance(message, str) and "config" in message):
                answers.append(json.loads(await connection.recv()))
    return answers


async def closed_with(url: str, *messages: bytes | str) -> tuple[int, str]:
    async with websockets.connect(url) as connection:
        for message in messages:
            await connection.send(message)
        await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


def test_the_published_client(served: VoskDaemon, toy: Path, tmp_path: Path) -> None:
    pcm = speech(SAID)
    answers = asyncio.run(published_client(served.url, wav(tmp_path / "a.wav", pcm)))
    assert len(answers) == -(-len(pcm) // (RATE // 5)) + 1
    expected = finals(toy, pcm.tobytes())
    assert len(expected) == 2
    results = [answer for answer in answers if "text" in answer]
    assert [answer["text"] for answer in results] == [final["text"] for final in expected]
    words = [(w["word"], w["start"], w["end"], w["conf"]) for answer in results for w in answer["result"]]
    assert words == [(w["word"], w["start"], w["end"], w["confidence"]) for f in expected for w in f["words"]]
    said = [answer["partial"] for answer in answers if "partial" in answer]
    assert len(said) + len(results) == len(answers)
    assert "AB" in said
    assert "text" in answers[-1]


@pytest.mark.parametrize("config", [(), ('{"config": {"words": true}}',)])
def test_a_file_that_is_sent_as_it_is(served: VoskDaemon, tmp_path: Path, config: tuple[str, ...]) -> None:
    """As the sample clients in C# do: the header goes along."""
    file = wav(tmp_path / "a.wav", np.repeat(speech("AB"), 2), 2 * RATE).read_bytes()
    parts = [file[at : at + 8000] for at in range(0, len(file), 8000)]
    answers = asyncio.run(talk(served.url, *config, *parts, EOF))
    assert "".join(answer.get("text", "") for answer in answers) == "AB"


def test_at_another_rate(served: VoskDaemon, tmp_path: Path) -> None:
    pcm = np.repeat(speech("AB"), 2)
    answers = asyncio.run(published_client(served.url, wav(tmp_path / "a.wav", pcm, 2 * RATE)))
    assert "".join(answer.get("text", "") for answer in answers) == "AB"


@pytest.mark.parametrize("size", [2, 34, 6400, 10**6])
def test_one_answer_a_message_of_any_size(served: VoskDaemon, toy: Path, size: int) -> None:
    pcm = (speech("AB" + " " * 16 + "BA" + " " * 16) if size > 2 else speech("A")[:200]).tobytes()
    parts = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    answers = asyncio.run(talk(served.url, *parts, EOF))
    assert len(answers) == len(parts) + 1
    said = " ".join(answer["text"] for answer in answers if answer.get("text"))
    assert said == " ".join(final["text"] for final in finals(toy, pcm))


def test_messages_that_are_not_waited_for_are_answered_in_turn(served: VoskDaemon) -> None:
    pcm = speech(SAID).tobytes()
    parts = [pcm[at : at + 1600] for at in range(0, len(pcm), 1600)]

    async def pipelined() -> list[str]:
        async with websockets.connect(served.url) as connection:
            for part in (*parts, EOF):
                await connection.send(part)
            return [str(await connection.recv(decode=True)) for _ in range(len(parts) + 1)]

    answers = [json.loads(answer) for answer in asyncio.run(pipelined())]
    in_turn = asyncio.run(talk(served.url, *parts, EOF))
    assert [a["text"] for a in answers if a.get("text")] == [a["text"] for a in in_turn if a.get("text")]


def test_configuration(served: VoskDaemon) -> None:
    pcm = speech("AB").tobytes()

    def ask(**config: Any) -> dict[str, Any]:
        return asyncio.run(talk(served.url, json.dumps({"config": {"sample_rate": RATE, **config}}), pcm, EOF))[-1]

    assert set(ask()) == {"text", "result"}
    assert ask(words=False) == {"text": "AB"}
    assert ask(model="trap", strange=1)["text"] == "AB"
    (found,) = ask(max_alternatives=3)["alternatives"]
    assert found["text"] == "AB"
    assert found["confidence"] <= 0
    assert [set(word) for word in found["result"]] == [{"word", "start", "end"}]


@pytest.mark.parametrize("end", ['{"eof" : 1}', '{"eof":1}', ' { "eof":true }'])
def test_an_end_however_it_is_spaced_and_without_sound(served: VoskDaemon, end: str) -> None:
    assert asyncio.run(talk(served.url, end)) == [{"text": ""}]


def test_a_reset_gives_the_result_and_time_goes_on(served: VoskDaemon) -> None:
    pcm = speech("AB").tobytes()
    answers = asyncio.run(talk(served.url, pcm, '{"reset" : 1}', pcm, EOF))
    first, second = (answer for answer in answers if "text" in answer)
    assert first["text"] == second["text"] == "AB"
    shift = len(pcm) / 2 / RATE
    assert second["result"][0]["start"] == pytest.approx(first["result"][0]["start"] + shift, abs=0.002)


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        (["hello"], 1007, "JSON"),
        (['{"stop": 1}'], 1007, "eof"),
        (["[" * 10_000], 1007, "nested"),
        ([json.dumps({"config": {"phrase_list": ["x"] * 9000}})], 1009, "max_control_bytes"),
        (['{"config": {"sample_rate": "fast"}}'], 1007, "config.sample_rate"),
        (['{"config": {"sample_rate": 100}}', b"\0\0"], 4400, "100"),
        (['{"config": {"model": "vosk-model-small"}}', b"\0\0"], 4404, "toy, trap"),
        (['{"config": {"phrase_list": ["one two", "[unk]"]}}', b"\0\0"], 4400, "hotwords"),
        ([b"\0\0\0"], 1007, "16-bit"),
        ([b"fLaC" + bytes(4000)], 1007, "FLAC"),
        ([b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x02\x00" + bytes(99)], 1007, "2 channels"),
        ([b"RIFF\x24\x00\x00\x00WAVEJUNK" + bytes(99)], 1007, "header does not end"),
        (['{"config": {"model": "trap"}}', np.full(RATE, 32767, np.int16).tobytes()], 1011, "failed"),
    ],
)
def test_what_can_not_be_done_closes_with_the_reason(
    served: VoskDaemon, messages: list[bytes | str], code: int, reason: str
) -> None:
    found = asyncio.run(closed_with(served.url, *messages))
    assert found[0] == code
    assert reason in found[1]


def test_a_list_of_nothing_but_unknown_words_is_no_list(served: VoskDaemon) -> None:
    answers = asyncio.run(talk(served.url, '{"config": {"phrase_list": ["[unk]"]}}', speech("A").tobytes(), EOF))
    assert "".join(answer.get("text", "") for answer in answers) == "A"


def test_many_are_each_their_own(served: VoskDaemon, toy: Path) -> None:
    pcms = [samples(seed, 2 * RATE).tobytes() for seed in range(4)]

    async def all_of_them() -> list[list[dict[str, Any]]]:
        parts = [[pcm[at : at + 3200] for at in range(0, len(pcm), 3200)] for pcm in pcms]
        return await asyncio.gather(*(talk(served.url, *part, EOF) for part in parts))

    for pcm, answers in zip(pcms, asyncio.run(all_of_them()), strict=True):
        said = " ".join(answer["text"] for answer in answers if answer.get("text"))
        assert said == " ".join(final["text"] for final in finals(toy, pcm))


def idle(running: Any) -> bool:
    page = running.metrics()
    states = [value for name, value in page.items() if name.startswith("streamer_sessions{")]
    return sum(states) == 0 == page['streamer_protocol_connections{protocol="vosk"}']


async def until_idle(running: Any) -> None:
    await asyncio.to_thread(until, lambda: idle(running))


def test_who_leaves_in_the_middle_leaves_nothing(served: VoskDaemon) -> None:
    async def leave() -> None:
        async with websockets.connect(served.url) as connection:
            await connection.send(speech("AB").tobytes())
            await connection.recv()
            connection.transport.abort()
        await until_idle(served.running)

    asyncio.run(leave())


def test_a_connection_too_many_is_closed(served: VoskDaemon) -> None:
    async def crowd() -> None:
        await until_idle(served.running)
        held = [await websockets.connect(served.url) for _ in range(8)]
        try:
            with pytest.raises((OSError, websockets.exceptions.InvalidHandshake, EOFError)):
                await websockets.connect(served.url)
        finally:
            for connection in held:
                await connection.close()
        await until_idle(served.running)

    asyncio.run(crowd())


@pytest.mark.long
def test_who_says_nothing_is_dropped(toy: Path, tmp_path: Path) -> None:
    port = free_port()
    with daemon(tmp_path, toy, vosk_port=port, handshake_seconds=1, idle_seconds=0.5) as running:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as silent:
            assert silent.recv(1) == b""
        code, reason = asyncio.run(closed_with(f"ws://127.0.0.1:{port}"))
        assert (code, "idle_seconds" in reason) == (4410, True)
        code, reason = asyncio.run(closed_with(f"ws://127.0.0.1:{port}", level(0.0, 0.2).tobytes()))
        assert (code, "idle_seconds" in reason) == (4410, True)
        assert running.metrics()['streamer_bad_input_total{reason="idle_timeout"}'] == 2


@pytest.mark.long
def test_going_down_tells_who_is_connected(toy: Path, tmp_path: Path) -> None:
    port = free_port()
    with daemon(tmp_path, toy, vosk_port=port) as running:

        async def told() -> int:
            async with websockets.connect(f"ws://127.0.0.1:{port}") as connection:
                await connection.send(speech("AB").tobytes())
                await connection.recv()
                running.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
            assert closed.value.rcvd is not None
            return closed.value.rcvd.code

        assert asyncio.run(told()) == 1012
        assert running.process.wait(60) == 0


def test_a_port_that_is_taken(toy: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = Running(tmp_path, toy, wait=False, vosk_port=taken.getsockname()[1])
        assert running.process.wait(60) == 69
        running.stop()
        assert "vosk_port" in running.errors.read_text()
