"""Sound over the WebSocket ``/v1/stream``: frames that are no PCM, and numbers as clients write them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import Running, daemon
from tests.daemon.talk import dial, until_closed
from tests.inputs import recordings as made
from tests.inputs.cases import Case, Result, hold
from tests.inputs.recordings import TALK, put, wav
from tests.inputs.test_sound import raw

ORDER = 2
STREAM = "Sound over `/v1/stream`"
ABOUT = {
    STREAM: """\
The frame `start`, then the file's bytes in binary frames of 960 bytes, then `end`. A file in the place of PCM is
refused by its first bytes; what looks like another format of samples is taken, with a `warning` event and a count
(`streamer_suspected_streams_total`). The code is that of the close frame, 1000 for a stream that ended well.""",
}
START = '{"type": "start", "sample_rate": 8000}'
DECODE = "decode it first (ffmpeg -i FILE -f s16le -ac 1 -ar 8000 -)"


def container(name: str, made_by: made.Make, kind: str, start: str = START) -> Case:
    says = f"not_pcm: this is {kind}, raw PCM is expected (s16le, mono): {DECODE}"
    return Case(name, STREAM, start, "refused", made_by, exit=1007, says=says)


def other(name: str, says: str, dtype: str, channels: int = 1) -> Case:
    return Case(
        name,
        STREAM,
        START,
        "taken as int16, and said",
        raw(dtype, channels),
        1000,
        f"looks_like: this looks like {says}",
    )


def frame(name: str, start: str, says: str) -> Case:
    return Case(name, STREAM, start, "refused", put(b"", "talk.raw"), exit=1007, says=says)


CASES = (
    Case("PCM", STREAM, START, "read", put(TALK.tobytes(), "talk.raw"), 1000, gives="AB"),
    container("WAV", put(wav()), "WAV"),
    container("MP3", made.as_format("talk.mp3", None, "MP3"), "MP3"),
    container("MP3 with a tag", made.mp3(made.with_tag), "MP3"),
    container("Ogg", made.as_format("talk.ogg", "VORBIS", "OGG"), "Ogg"),
    container("FLAC", made.as_format("talk.flac", None, "FLAC"), "FLAC"),
    container("AIFF", made.as_format("talk.aiff", None, "AIFF"), "AIFF"),
    container("AU", made.as_format("talk.au", None, "AU"), "AU"),
    container("CAF", made.as_format("talk.caf", None, "CAF"), "CAF"),
    container("RF64", made.as_format("talk.wav", None, "RF64"), "RF64"),
    container("WebM (a browser's MediaRecorder)", put(b"\x1aE\xdf\xa3" + bytes(2000)), "WebM or Matroska"),
    container("M4A", put(b"\0\0\0\x20ftypM4A " + bytes(2000)), "MP4 or M4A"),
    Case(
        "base64 in a binary frame",
        STREAM,
        START,
        "refused",
        put(b"c29tZSBiYXNlNjQgb2Ygc291bmQ" * 80),
        exit=1007,
        says="not_pcm: this is a text, raw PCM is expected (s16le, mono, 8000 Hz)",
    ),
    other("32 bit float", "32 bit float: send int16, each sample times 32767", "<f4"),
    other("unsigned 8 bit", "unsigned 8 bit: send int16, (sample - 128) * 256", "u1"),
    other("big-endian", "big-endian 16 bit: swap the bytes of each sample", ">i2"),
    other("two channels", "two channels, one sample of each in turn: send one channel", "<i2", 2),
    Case("16 bit sound", STREAM, START, "read", raw("<i2"), 1000),
    Case(
        "a rate that is a whole number, written as 8000.0",
        STREAM,
        '{"type": "start", "sample_rate": 8000.0}',
        "read",
        put(TALK.tobytes(), "talk.raw"),
        1000,
        gives="AB",
    ),
    frame(
        "a rate in quotes",
        '{"type": "start", "sample_rate": "8000"}',
        "bad_frame: the control frame can't be used: sample_rate: "
        '"8000" is text, and a number is expected: leave out the quotes',
    ),
    frame(
        "half a hertz",
        '{"type": "start", "sample_rate": 8000.5}',
        "bad_frame: the control frame can't be used: sample_rate: a whole number is expected, not 8000.5",
    ),
    frame(
        "no type",
        '{"sample_rate": 8000}',
        "bad_frame: the control frame can't be used: "
        'it has no "type": one of {"type": "start"}, "resume", "rows", "marker" and "end" is expected',
    ),
    frame(
        "an unknown type",
        '{"type": "StartStream"}',
        'bad_frame: the control frame can\'t be used: there is no frame of the type "StartStream": one of …',
    ),
    frame(
        "an unknown field",
        '{"type": "start", "samplerate": 8000}',
        "bad_frame: the control frame can't be used: samplerate: there is no such field: there are type, model, …",
    ),
)


@pytest.fixture(scope="module")
def running(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("wire"), toy) as found:
        yield found


async def _talk(url: str, start: str, data: bytes) -> Result:
    """What came back: the texts of finals, and what was complained of."""
    async with dial(url) as connection:
        await connection.send(start)
        for at in range(0, len(data), 960):
            await connection.send(data[at : at + 960])
        if data:
            await connection.send('{"type":"end"}')
        told, code = await until_closed(connection)
    said = [f"{event['code']}: {event['message']}" for event in told if event["type"] in ("error", "warning")]
    return Result(code, "\n".join(e["text"] for e in told if e["type"] == "final"), "\n".join(said))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, running: Running, tmp_path: Path) -> None:
    case.make(tmp_path)
    data = next(tmp_path.iterdir()).read_bytes()
    before = sum(
        value for name, value in running.metrics().items() if name.startswith("streamer_suspected_streams_total")
    )
    hold(case, asyncio.run(_talk(running.url, case.command, data)))
    after = sum(
        value for name, value in running.metrics().items() if name.startswith("streamer_suspected_streams_total")
    )
    assert after - before == (1 if "looks_like" in case.says else 0)


def test_the_table_is_json() -> None:
    assert all(json.loads(case.command) for case in CASES)
