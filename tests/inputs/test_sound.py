"""Recordings: files, pipes, standard input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import RATE
from tests.inputs import recordings as made
from tests.inputs.cases import Case, hold, run
from tests.inputs.recordings import TALK, UNKNOWN, put, wav

ORDER = 1
FILES, PIPES, RAW, CHANNELS, NAMES = (
    "Recordings",
    "Recordings through pipes",
    "Raw PCM on standard input",
    "Channels and levels",
    "Names and many files",
)
ABOUT = {
    FILES: """\
WAV (8 to 64 bit, float, A-law, mu-law, ADPCM), RF64, W64, FLAC, Ogg (Vorbis, Opus), MP3, AIFF, AU and CAF are read
here; M4A, WebM, AAC, AMR, WMA and the sound of films by `ffmpeg`, if it is installed. Lengths in headers are believed
only as far as the bytes agree. The file's kind is known by its first bytes, not by its name.""",
    PIPES: """\
A file, a pipe, a FIFO, `/dev/stdin`, a process substitution and `-` are read alike. WAV, AIFF, AU, FLAC, MP3 and Ogg
are decoded while they come; for the formats of `ffmpeg` the pipe's end is awaited.""",
    RAW: """\
What does not begin as a known file does is raw PCM: 16 bit, little-endian, one channel, at `--rate` Hz. If it looks
like another format of samples, that is said once, and it is taken as it is.""",
    CHANNELS: "Several channels become their mean. Where they cancel each other, the louder one is taken.",
    NAMES: """\
Names are bytes. One bad file does not stop the others; with ten files or more, or if one was bad, the last line counts
them.""",
}

FILE, PIPE = "streamer transcribe talk.wav", "cat talk.wav | streamer transcribe -"
RAW_IN = f"streamer transcribe - --rate {RATE} < talk.raw"
MIXED = "streamer: talk.wav: 2 channels, mixed down to one"
#: Opus lets no constant level through, which is what the tests' model hears.
OPUS = "ABBA"
#: Behind a message about what can't be read.
CAN = "; wav, flac, ogg/opus, mp3, aiff, au and caf can; others if ffmpeg is installed"
VOICE = TALK.astype(np.float64)


def read(
    name: str, make: made.Make, command: str = FILE, says: str = "", source: str = FILES, gives: str = "AB"
) -> Case:
    return Case(name, source, command, "read", make, says=says, gives=gives)


def refused(
    name: str,
    make: made.Make,
    says: str,
    command: str = FILE,
    source: str = FILES,
    gives: str = "",
    outcome: str = "refused",
) -> Case:
    return Case(name, source, command, outcome, make, exit=2, says=f"streamer: {says}", gives=gives)


def _locked(folder: Path) -> None:
    (folder / "talk.wav").write_bytes(wav())
    (folder / "talk.wav").chmod(0)


def _real_sound(folder: Path, dtype: str, channels: int = 1) -> None:
    """A voice-like tone with vibrato, in another format than int16."""
    t = np.arange(3 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 180 * t + 3 * np.sin(2 * np.pi * 5 * t)) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    tone += np.random.default_rng(1).normal(0, 0.003, len(t))
    if channels == 2:
        tone = np.repeat(tone, 2)
    values = {
        "<f4": tone,
        "<f8": tone,
        "u1": 128 + 127 * tone,
        ">i2": 32767 * tone,
        "<i2": 32767 * tone,
        "<i4": 2**31 * tone,
    }
    (folder / "talk.raw").write_bytes(values[dtype].astype(dtype).tobytes())


def raw(dtype: str, channels: int = 1) -> made.Make:
    return lambda folder: _real_sound(folder, dtype, channels)


CASES = (
    # -- lengths -------------------------------------------------------------------------------------------------------
    read("WAV, 16 bit", put(wav())),
    read("WAV, length 0x7FFFFF00 (arecord)", put(wav(0x7FFFFF00, 0x7FFFFF24))),
    read("WAV, length 0x80000000", put(wav(0x80000000, 0x80000024))),
    read("WAV, length 0xFFFFFFFF (ffmpeg)", put(wav(UNKNOWN, UNKNOWN))),
    read("WAV, length 0x7FFF0000 (GStreamer)", put(wav(0x7FFF0000, 0))),
    read("WAV, length 0, samples behind it", put(wav(0, 0))),
    read("WAV, only the RIFF length is wrong", put(wav(None, 0))),
    read(
        "WAV, length of its first half",
        put(wav(len(TALK))),
        says="streamer: talk.wav: 1.20 s follow the end that its header gives: they are read, too",
    ),
    read(
        "WAV, chunks before and behind the samples",
        put(wav(before=made.chunk(b"LIST", b"INFOx" * 9), behind=made.chunk(b"id3 ", b"xyz"))),
    ),
    read(
        "WAV, a chunk bext and one junk",
        put(wav(before=made.chunk(b"bext", bytes(603)) + made.chunk(b"junk", bytes(27)))),
    ),
    refused(
        "WAV, cut in the middle of a sample",
        put(wav()[:-8001]),
        "talk.wav: is truncated: 8001 bytes are missing behind 1.90 s",
        gives="AB",
        outcome="read as far as it goes",
    ),
    refused("WAV, its header only", put(wav()[:20]), "talk.wav: is cut off in its header: no samples follow"),
    refused("WAV, no samples", put(wav(samples=b"")), "talk.wav: holds no samples"),
    # -- formats of WAV ------------------------------------------------------------------------------------------------
    *(
        read(f"WAV, {name}", made.as_format("talk.wav", subtype, format))
        for name, subtype, format in (
            ("8 bit unsigned", "PCM_U8", "WAV"),
            ("24 bit", "PCM_24", "WAV"),
            ("32 bit", "PCM_32", "WAV"),
            ("float", "FLOAT", "WAV"),
            ("64 bit float", "DOUBLE", "WAV"),
            ("A-law", "ALAW", "WAV"),
            ("mu-law", "ULAW", "WAV"),
            ("IMA ADPCM", "IMA_ADPCM", "WAV"),
            ("extensible", "PCM_16", "WAVEX"),
        )
    ),
    read("RIFX (big-endian)", put(made.rifx())),
    read(
        "WAV, two files in one",
        put(wav() + wav()),
        says="streamer: talk.wav: another WAV follows its end and is left out: give each WAV as a file of its own",
    ),
    read("RF64, length -1", put(made.rf64(2**64 - 1))),
    read("RF64", made.as_format("talk.wav", "PCM_16", "RF64")),
    read("RF64, length 0 (ffmpeg through a pipe)", put(made.rf64(0))),
    read("W64", made.as_format("talk.wav", "PCM_16", "W64")),
    # -- other containers ----------------------------------------------------------------------------------------------
    *(
        read(
            f"{format} {subtype}".strip(),
            made.as_format(f"talk.{name}", subtype, format),
            f"streamer transcribe talk.{name}",
            gives=OPUS if subtype == "OPUS" else "AB",
        )
        for name, subtype, format in (
            ("flac", "PCM_16", "FLAC"),
            ("ogg", "VORBIS", "OGG"),
            ("opus", "OPUS", "OGG"),
            ("mp3", "MPEG_LAYER_III", "MP3"),
            ("aiff", "PCM_16", "AIFF"),
            ("au", "PCM_16", "AU"),
            ("caf", "PCM_16", "CAF"),
        )
    ),
    read("FLAC that does not say its length", made.flac_of_unknown_length, "streamer transcribe talk.flac"),
    read(
        "Ogg, two files in one (chained)",
        made.twice(made.as_format("talk.opus", "OPUS", "OGG"), "talk.opus"),
        "streamer transcribe talk.opus",
        gives=f"{OPUS}\n{OPUS}",
    ),
    refused(
        "Ogg, cut",
        made.cut(made.as_format("talk.ogg", "VORBIS", "OGG"), "talk.ogg", 100),
        "talk.ogg: is truncated: at least 100 bytes are missing",
        "streamer transcribe talk.ogg",
        outcome="read up to its last whole page",
    ),
    read("MP3 with a tag (ID3v2)", made.mp3(made.with_tag), "streamer transcribe talk.mp3"),
    read("MP3 that does not say its length", made.mp3(made.without_length), "streamer transcribe talk.mp3"),
    read("MP3 that says half of its length", made.mp3(made.half_a_length), "streamer transcribe talk.mp3"),
    read(
        "MP3, two files in one", made.twice(made.mp3(bytes), "talk.mp3"), "streamer transcribe talk.mp3", gives="AB\nAB"
    ),
    read("AIFF, lengths 0", put(made.aiff(0, 0), "talk.aiff"), "streamer transcribe talk.aiff"),
    read("AU, length 0xFFFFFFFF", put(made.au(UNKNOWN), "talk.au"), "streamer transcribe talk.au"),
    read("CAF, length -1", put(made.caf(-1), "talk.caf"), "streamer transcribe talk.caf"),
    refused(
        "AU, cut",
        put(made.au(2 * len(TALK))[:-1000], "talk.au"),
        "talk.au: is truncated: 1000 bytes are missing behind …",
        "streamer transcribe talk.au",
        gives="AB",
        outcome="read as far as it goes",
    ),
    read("M4A, with ffmpeg", made.converted("talk.m4a"), "streamer transcribe talk.m4a"),
    read(
        "WebM, with ffmpeg", made.converted("talk.webm", "-c:a", "libopus"), "streamer transcribe talk.webm", gives=OPUS
    ),
    refused(
        "M4A, without ffmpeg",
        put(b"\0\0\0\x20ftypM4A " + bytes(100), "talk.m4a"),
        "talk.m4a: is MP4 or M4A, which ffmpeg decodes, and it is not installed: sudo apt install ffmpeg",
        'PATH="$(dirname "$(command -v streamer)")" streamer transcribe talk.m4a',
    ),
    refused(
        "M4A that is damaged",
        put(b"\0\0\0\x20ftypM4A " + bytes(100), "talk.m4a"),
        "talk.m4a: is MP4 or M4A that ffmpeg can't decode (…)",
        "streamer transcribe talk.m4a",
    ),
    # -- what is no sound ----------------------------------------------------------------------------------------------
    refused("a short text", put("grüße\n".encode()), f"talk.wav: is a text, not sound{CAN}"),
    refused("a text", put(b"This is text, where audio belongs.\n" * 50), f"talk.wav: is a text, not sound{CAN}"),
    refused(
        "JSON",
        put(json.dumps({"error": "not found", "status": 404, "path": "/talk.wav"}).encode() * 2),
        f"talk.wav: is JSON, not sound{CAN}",
    ),
    refused(
        "an HTML page",
        put(b"<!DOCTYPE html><html><body>404</body></html>"),
        f"talk.wav: is an HTML page, not sound{CAN}",
    ),
    refused("a PNG", put(b"\x89PNG\r\n\x1a\n" + bytes(100)), f"talk.wav: is a PNG picture, not sound{CAN}"),
    refused("bytes of no known kind", put(bytes(range(256)) * 20), f"talk.wav: is not audio that can be read{CAN}"),
    refused("an empty file", put(b""), "talk.wav: is empty (0 bytes)"),
    refused("a folder", lambda folder: (folder / "talk.wav").mkdir(), "talk.wav: is a folder, not an audio file"),
    refused("no file", lambda folder: None, "talk.wav: no such file"),
    refused("a file without permission", _locked, "talk.wav: can't be read: Permission denied"),
    refused(
        "raw PCM as a file",
        put(TALK.tobytes(), "talk.raw"),
        "talk.raw: has no header; raw PCM goes in like this: streamer transcribe - --rate 16000 < talk.raw",
        "streamer transcribe talk.raw",
    ),
    # -- pipes ---------------------------------------------------------------------------------------------------------
    read("WAV on `-`", put(wav()), PIPE, source=PIPES),
    read("WAV on `-`, length 0xFFFFFFFF", put(wav(UNKNOWN, UNKNOWN)), PIPE, source=PIPES),
    read("WAV on `-`, length 0", put(wav(0, 0)), PIPE, source=PIPES),
    read("WAV on `-`, from a file", put(wav()), "streamer transcribe - < talk.wav", source=PIPES),
    read(
        "WAV through `/dev/stdin`", put(wav(0x7FFFFF00)), "cat talk.wav | streamer transcribe /dev/stdin", source=PIPES
    ),
    read(
        "WAV through a FIFO",
        put(wav(UNKNOWN)),
        "mkfifo pipe; cat talk.wav > pipe & streamer transcribe pipe",
        source=PIPES,
    ),
    read("WAV, process substitution", put(wav(0)), "streamer transcribe <(cat talk.wav)", source=PIPES),
    *(
        read(
            f"{format} {subtype} on `-`",
            made.as_format("talk.bin", subtype, format),
            "cat talk.bin | streamer transcribe -",
            source=PIPES,
            gives=OPUS if subtype == "OPUS" else "AB",
        )
        for subtype, format in (
            ("PCM_16", "FLAC"),
            ("VORBIS", "OGG"),
            ("OPUS", "OGG"),
            ("MPEG_LAYER_III", "MP3"),
            ("PCM_16", "AIFF"),
            ("PCM_16", "AU"),
            ("PCM_16", "CAF"),
            ("PCM_16", "W64"),
            ("PCM_16", "RF64"),
        )
    ),
    refused(
        "WAV of IMA ADPCM on `-`, length 0xFFFFFFFF",
        made.adpcm_of_unknown_length,
        "-: is WAV of the codec 0x11, which needs a length, and its header has none: give it as a file",
        PIPE,
        PIPES,
    ),
    read("M4A on `-`, with ffmpeg", made.converted("talk.m4a"), "cat talk.m4a | streamer transcribe -", source=PIPES),
    refused(
        "WAV on `-`, cut",
        put(wav()[:-8001]),
        "-: is truncated: 8001 bytes are missing behind 1.90 s",
        PIPE,
        PIPES,
        gives="AB",
        outcome="read as far as it goes",
    ),
    refused(
        "a PNG on `-`", put(b"\x89PNG\r\n\x1a\n" + bytes(100)), f"-: is a PNG picture, not sound{CAN}", PIPE, PIPES
    ),
    refused("nothing on `-`", put(b""), "-: standard input is empty (0 bytes)", PIPE, PIPES),
    # -- raw PCM -------------------------------------------------------------------------------------------------------
    read("16 bit at the right rate", put(TALK.tobytes(), "talk.raw"), RAW_IN, source=RAW),
    refused(
        "half a sample at the end",
        put(TALK.tobytes() + b"x", "talk.raw"),
        f"-: {2 * len(TALK) + 1} bytes are no whole number of 16-bit samples: the last byte was left out",
        RAW_IN,
        RAW,
        gives="AB",
        outcome="read as far as it goes",
    ),
    refused(
        "a rate that the model can't serve",
        put(TALK.tobytes(), "talk.raw"),
        "-: …50…",
        "streamer transcribe - --rate 50 < talk.raw",
        RAW,
    ),
    *(
        Case(
            name,
            RAW,
            RAW_IN,
            "taken as int16, and said",
            raw(dtype, count),
            says=f"streamer: -: this looks like {says} (raw PCM is 16 bit, little-endian, one channel)",
        )
        for name, dtype, count, says in (
            ("32 bit float", "<f4", 1, "32 bit float: send int16, each sample times 32767"),
            ("64 bit float", "<f8", 1, "64 bit float: send int16, each sample times 32767"),
            ("unsigned 8 bit", "u1", 1, "unsigned 8 bit: send int16, (sample - 128) * 256"),
            ("32 bit integers", "<i4", 1, "32 bit integers: send int16, the upper 16 bits of each"),
            ("big-endian", ">i2", 1, "big-endian 16 bit: swap the bytes of each sample"),
            ("two channels", "<i2", 2, "two channels, one sample of each in turn: send one channel"),
        )
    ),
    Case("16 bit sound", RAW, RAW_IN, "read", raw("<i2")),
    # -- channels ------------------------------------------------------------------------------------------------------
    read("stereo", made.channels(VOICE, VOICE), says=MIXED, source=CHANNELS),
    read("stereo, one channel silent", made.channels(VOICE, 0 * VOICE), says=MIXED, source=CHANNELS),
    read(
        "stereo in antiphase",
        made.channels(VOICE, -VOICE),
        says=f"{MIXED}\nstreamer: talk.wav: its channels cancel each other at 0.00 s: where they do, the louder one is "
        "taken, here the left (--channel left, right or mix)",
        source=CHANNELS,
    ),
    read(
        "antiphase, `--channel mix`", made.channels(VOICE, -VOICE), f"{FILE} --channel mix", MIXED, CHANNELS, gives=""
    ),
    read(
        "antiphase, `--channel right`",
        made.channels(-VOICE, VOICE),
        f"{FILE} --channel right",
        "streamer: talk.wav: 2 channels, the right one is taken",
        CHANNELS,
    ),
    refused(
        "one channel, `--channel right`",
        put(wav()),
        "talk.wav: has one channel: --channel right is for two",
        f"{FILE} --channel right",
        CHANNELS,
    ),
    read(
        "float samples up to 20000",
        made.floats(TALK.astype(np.float32)),
        says="streamer: talk.wav: its float samples reach 20000, where full scale is 1: they are divided by 32768",
        source=CHANNELS,
    ),
    refused(
        "float samples up to 1e30",
        made.floats(TALK.astype(np.float32) * 1e26),
        "talk.wav: holds float samples up to 2e+30, which are on no scale: full scale is 1",
        source=CHANNELS,
    ),
    refused(
        "NaN among float samples",
        made.floats(np.where(np.arange(len(TALK)) == 16000, np.nan, TALK / 32768).astype(np.float32)),
        "talk.wav: holds values that are no numbers (NaN or infinity), the first at 2.000 s",
        source=CHANNELS,
        gives="AB",
        outcome="read as far as it goes",
    ),
    # -- names ---------------------------------------------------------------------------------------------------------
    Case(
        "a name that is not UTF-8, JSON",
        NAMES,
        r"""mv talk.wav $'t\xe4.wav'; streamer transcribe --json *.wav | grep -c '"final", "file": "t.udce4.wav"'""",
        "read; the byte is `\\udce4` in JSON",
        put(wav()),
        gives="1",
    ),
    Case(
        "a name that is not UTF-8, subtitles",
        NAMES,
        r"""cp talk.wav $'t\xe4.wav'; streamer transcribe --srt -o out/ $'t\xe4.wav'; tail -n +3 $'out/t\xe4.srt'""",
        "read",
        put(wav()),
        gives="Ab.",
    ),
    Case(
        "a name that is not UTF-8, no such file",
        NAMES,
        r"""streamer transcribe $'t\xe4lk.wav'""",
        "refused",
        exit=2,
        says="streamer: t\\udce4lk.wav: no such file",
        gives="",
    ),
    Case(
        "twelve files",
        NAMES,
        "for n in {1..12}; do cp talk.wav $n.wav; done; streamer transcribe {1..12}.wav | sort -V | tail -1",
        "read",
        put(wav()),
        says="streamer: 12 of 12 inputs were read",
        gives="12.wav: AB",
    ),
    Case(
        "two files, one of them bad",
        NAMES,
        "streamer transcribe none.wav talk.wav",
        "the other is read",
        put(wav()),
        exit=2,
        says="streamer: none.wav: no such file\n"
        "streamer: 1 of 2 inputs were read, 1 not, or not whole: none.wav is the first",
        gives="talk.wav: AB",
    ),
)


#: One case in three is tried by default, the others with ``--all``: each is a process of its own.
TRIED = [pytest.param(case, id=case.name, marks=[pytest.mark.long] if at % 3 else []) for at, case in enumerate(CASES)]


@pytest.mark.parametrize("case", TRIED)
def test_case(case: Case, toy: Path, tmp_path: Path) -> None:
    if "with ffmpeg" in case.name and not made.FFMPEG:
        pytest.skip("ffmpeg is not installed")
    if "damaged" in case.name and not made.FFMPEG:
        pytest.skip("ffmpeg is not installed")
    if "permission" in case.name and os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = tmp_path / "here"
    folder.mkdir()
    hold(case, run(case, folder, {"transcribe": f"--model {toy}"}))
