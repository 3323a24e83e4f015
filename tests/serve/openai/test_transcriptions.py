"""``/v1/audio/transcriptions`` as OpenAI's own client speaks it."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI

from streamer.sources.files import AudioFile
from tests.daemon.in_process import run_in_process
from tests.daemon.running import Running, daemon
from tests.daemon.talk import opened
from tests.serve.openai.conftest import talking_to
from tests.serve.openai.sounds import RATE, SAID, recording
from tests.serve.waiting import until
from tests.toys import level, samples, speech


def finals(model: Path, pcm: bytes) -> list[dict[str, Any]]:
    return [event for event in run_in_process(model, pcm, RATE) if event["type"] == "final" and event["text"]]


@pytest.fixture(scope="module")
def expected(toy: Path) -> list[dict[str, Any]]:
    found = finals(toy, speech(SAID).tobytes())
    assert len(found) == 2  # utterances
    return found


@pytest.fixture
def text(expected: list[dict[str, Any]]) -> str:
    return " ".join(final["text"] for final in expected)


def test_json(client: OpenAI, text: str) -> None:
    found = client.audio.transcriptions.create(model="toy", file=recording())
    assert found.text == text
    assert found.usage.type == "duration"
    assert found.usage.seconds == -(-len(speech(SAID)) // RATE)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "AIFF", "OGG", "MP3"])
def test_an_upload_is_decoded_as_a_file_is(client: OpenAI, toy: Path, tmp_path: Path, form: str) -> None:
    upload = recording(np.repeat(speech(SAID), 2), 2 * RATE, form, "sound")
    path = tmp_path / "sound"
    path.write_bytes(upload.getvalue())
    file = AudioFile(path)
    pcm = b"".join(file.blocks())
    file.close()
    heard = [event["text"] for event in run_in_process(toy, pcm, file.rate) if event["type"] == "final"]
    assert client.audio.transcriptions.create(model="toy", file=upload).text == " ".join(filter(None, heard))
    assert "".join(heard)


def test_two_channels_become_one(client: OpenAI, text: str) -> None:
    pcm = speech(SAID)
    found = client.audio.transcriptions.create(model="toy", file=recording(np.stack([pcm, pcm], axis=1)))
    assert found.text == text


def test_plain_text_and_subtitles(client: OpenAI, text: str, expected: list[dict[str, Any]]) -> None:
    create = client.audio.transcriptions.create
    assert create(model="toy", file=recording(), response_format="text") == text + "\n"
    srt = create(model="toy", file=recording(), response_format="srt")
    vtt = create(model="toy", file=recording(), response_format="vtt")
    assert srt.count(" --> ") == vtt.count(" --> ") == len(expected)
    assert srt.startswith("1\n00:00:00,")
    assert vtt.startswith("WEBVTT\n")


def test_verbose_json_has_words_and_segments(client: OpenAI, text: str, expected: list[dict[str, Any]]) -> None:
    found = client.audio.transcriptions.create(
        model="toy", file=recording(), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    words = [(word["word"], word["start"], word["end"]) for final in expected for word in final["words"]]
    assert [(word.word, word.start, word.end) for word in found.words] == words
    assert [(s.text, s.start, s.end) for s in found.segments] == [(f["text"], f["start"], f["end"]) for f in expected]
    assert [s.id for s in found.segments] == [0, 1]
    assert all(s.avg_logprob <= 0 for s in found.segments)
    assert found.text == text
    assert found.duration == pytest.approx(len(speech(SAID)) / RATE)
    plain = client.audio.transcriptions.create(model="toy", file=recording(), response_format="verbose_json")
    assert plain.words is None
    assert len(plain.segments) == 2


@pytest.mark.parametrize("model", ["toy", "worded"])
def test_deltas_add_up_to_the_text(client: OpenAI, model: str) -> None:
    whole = client.audio.transcriptions.create(model=model, file=recording())
    with client.audio.transcriptions.create(model=model, file=recording(), stream=True) as events:
        told = list(events)
    assert {event.type for event in told[:-1]} == {"transcript.text.delta"}
    assert "".join(event.delta for event in told[:-1]) == whole.text
    assert (told[-1].type, told[-1].text) == ("transcript.text.done", whole.text)
    assert (len(told) > 3) == (model == "worded")  # whose words are told before their utterance ends


def test_more_channels_than_anybody_records(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="40 channels"):
        client.audio.transcriptions.create(model="toy", file=recording(np.zeros((800, 40), np.int16)))


def test_silence_is_an_empty_text(client: OpenAI) -> None:
    assert client.audio.transcriptions.create(model="toy", file=recording(level(0.0, 1.0))).text == ""


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["toy", "trap", "worded"]
    assert client.models.retrieve("trap").id == "trap"
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_the_daemons_own_list_of_models_is_still_there(served: Running) -> None:
    assert [model["name"] for model in json.loads(served.get("/v1/models")[1])["models"]] == ["toy", "trap", "worded"]


def test_openais_names_stand_for_the_first_transcriber(client: OpenAI, text: str) -> None:
    assert client.audio.transcriptions.create(model="whisper-1", file=recording()).text == text


def test_an_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="toy, trap, worded") as refused:
        client.audio.transcriptions.create(model="gpt-9", file=recording())
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"hello " * 100, "is a text, not sound"),
        (b"", "empty"),
        (recording().getvalue()[:2000], "missing"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    ],
)
def test_what_is_no_recording(client: OpenAI, body: bytes, says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        client.audio.transcriptions.create(model="toy", file=("voice.wav", body))
    assert "voice.wav" in refused.value.message
    assert (refused.value.param, refused.value.type) == ("file", "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails(client: OpenAI, stream: bool) -> None:
    pcm = np.concatenate([speech("AB"), np.full(800, 32767, np.int16)])
    with pytest.raises(openai.APIError, match="failed"):
        list(client.audio.transcriptions.create(model="trap", file=recording(pcm), stream=stream))


def test_fields_that_do_not_fit(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="toy", file=recording(), response_format="diarized_json")
    assert refused.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match="hotwords"):
        client.audio.transcriptions.create(model="toy", file=recording(), extra_body={"hotwords": ["A"]})


def test_what_has_no_effect_does_no_harm(client: OpenAI, text: str) -> None:
    found = client.audio.transcriptions.create(
        model="toy", file=recording(), language="en", prompt="Hello.", temperature=0.3, include=["logprobs"]
    )
    assert found.text == text


def test_many_at_once_are_each_their_own(served: Running, toy: Path) -> None:
    pcms = [samples(seed, 3 * RATE) for seed in range(6)]
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        with talking_to(served) as client:
            found[number] = client.audio.transcriptions.create(model="toy", file=recording(pcms[number])).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: " ".join(f["text"] for f in finals(toy, pcm.tobytes())) for n, pcm in enumerate(pcms)}


def test_nothing_is_left_behind(served: Running, client: OpenAI) -> None:
    client.audio.transcriptions.create(model="toy", file=recording())
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model="toy", file=("x", b"nothing" * 99))

    def idle() -> bool:
        page = served.metrics()
        states = [value for name, value in page.items() if name.startswith("streamer_sessions{")]
        return sum(states) == page["streamer_uploads"] == page["streamer_request_bytes"] == 0

    until(idle)


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tight(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {"max_uploads": 1, "max_upload_bytes": 200_000, "max_upload_sound_seconds": 20, "buffer_seconds": 1}
    with daemon(tmp_path_factory.mktemp("tight"), toy, capacity=1, **settings) as running:
        yield running


@pytest.mark.long
def test_too_long_a_body_and_too_long_a_sound(tight: Running) -> None:
    with talking_to(tight) as client:
        with pytest.raises(openai.APIStatusError, match="max_upload_bytes") as refused:
            client.audio.transcriptions.create(model="toy", file=("a.wav", bytes(300_000)))
        assert refused.value.status_code == 413
        hours = recording(np.zeros(60 * RATE, np.int16), RATE, "FLAC")  # of which some kilobytes are sent
        assert len(hours.getvalue()) < 50_000
        with pytest.raises(openai.APIStatusError, match="max_upload_sound_seconds") as refused:
            client.audio.transcriptions.create(model="toy", file=hours)
        assert refused.value.status_code == 413
        assert client.audio.transcriptions.create(model="toy", file=recording(speech("A"))).text == "A"


def test_no_slot_is_said_with_retry_after(tight: Running) -> None:
    async def held() -> None:
        async with opened(tight.url):
            with talking_to(tight) as client:
                with pytest.raises(openai.InternalServerError, match="slots") as refused:
                    client.audio.transcriptions.create(model="toy", file=recording(speech("A")))
                assert refused.value.status_code == 503
                assert refused.value.response.headers["retry-after"] == "5"

    asyncio.run(held())


@pytest.mark.long
def test_the_routes_can_be_switched_off(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, openai=False) as running, talking_to(running) as client:
        with pytest.raises(openai.NotFoundError):
            client.audio.transcriptions.create(model="toy", file=recording())
        assert "data" not in json.loads(running.get("/v1/models")[1])


def long_upload(running: Running) -> socket.socket:
    """The bytes of an hour of sound sent; nothing is read of the answer."""
    body = recording(np.tile(samples(1, RATE), 3600), RATE, "FLAC").getvalue()
    boundary = "frontier"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'
    form = head.encode() + body + f"\r\n--{boundary}--\r\n".encode()
    request = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n"
    request += f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    plain = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    plain.sendall(request.encode() + form)
    until(lambda: running.metrics()["streamer_uploads"] == 1)
    return plain


@pytest.fixture(scope="module")
def slow(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One upload at a time, of any length, and each runs far too long to be done by itself."""
    settings = {"max_uploads": 1, "max_upload_bytes": 2**26, "upload_seconds": 3600, "lanes": 1, "buffer_seconds": 0.1}
    with daemon(tmp_path_factory.mktemp("slow"), toy, **settings) as running:
        yield running


@pytest.mark.long
def test_one_too_many_is_refused_and_who_leaves_makes_room(slow: Running) -> None:
    plain = long_upload(slow)
    with talking_to(slow) as client:
        with pytest.raises(openai.InternalServerError, match="max_uploads") as refused:
            client.audio.transcriptions.create(model="toy", file=recording(speech("A")))
        assert refused.value.status_code == 503
        assert slow.metrics()['streamer_refused_requests_total{reason="uploads"}'] == 1
        plain.close()
        until(lambda: slow.metrics()["streamer_uploads"] == 0)
        assert client.audio.transcriptions.create(model="toy", file=recording(speech("A"))).text == "A"


@pytest.mark.long
def test_going_down_answers_who_waits(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, max_upload_bytes=2**26, lanes=1, buffer_seconds=0.1) as running:
        plain = long_upload(running)
        assert running.stop(signal.SIGTERM) == 0
        answer = io.BytesIO()
        while data := plain.recv(65536):
            answer.write(data)
        plain.close()
        assert answer.getvalue().startswith(b"HTTP/1.1 503 ")
        assert b"draining" in answer.getvalue()
