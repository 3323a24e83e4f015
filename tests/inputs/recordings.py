"""Files of sound for the tables: every container, with lengths as wrong as programs write them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from tests.cli.conftest import RATE, utterances

Make = Callable[[Path], object]
#: "AB" at 8 kHz: what a transcript must say, whatever it is wrapped in.
TALK: NDArray[np.int16] = utterances("AB")
FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
UNKNOWN = 0xFFFFFFFF


def chunk(kind: bytes, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}4sI", kind, len(data)) + data + bytes(len(data) % 2)


def wav(
    data_size: int | None = None,
    riff_size: int | None = None,
    before: bytes = b"",
    behind: bytes = b"",
    form: bytes = FORMAT,
    samples: bytes | None = None,
) -> bytes:
    """A WAV by hand. ``data_size`` and ``riff_size``: what its header says."""
    raw = TALK.tobytes() if samples is None else samples
    body = b"WAVE" + before + chunk(b"fmt ", form)
    body += b"data" + struct.pack("<I", len(raw) if data_size is None else data_size) + raw + behind
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def rifx() -> bytes:
    form = struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + chunk(b"fmt ", form, ">") + chunk(b"data", TALK.astype(">i2").tobytes(), ">")
    return b"RIFX" + struct.pack(">I", len(body)) + body


def rf64(size: int) -> bytes:
    raw = TALK.tobytes()
    body = b"WAVE" + chunk(b"ds64", struct.pack("<QQQI", size, size, 0, 0)) + chunk(b"fmt ", FORMAT)
    return b"RF64\xff\xff\xff\xff" + body + b"data\xff\xff\xff\xff" + raw


def au(size: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, size, 3, RATE, 1) + TALK.astype(">i2").tobytes()


def caf(size: int) -> bytes:
    desc = struct.pack(">d4sIIIII", float(RATE), b"lpcm", 2, 2, 1, 1, 16)  # flag 2: little-endian
    data = b"data" + struct.pack(">q", size) + bytes(4) + TALK.tobytes()
    return b"caff\0\1\0\0" + b"desc" + struct.pack(">q", len(desc)) + desc + data


def aiff(size: int, form: int) -> bytes:
    rate = b"\x40\x0b\xfa\0\0\0\0\0\0\0"  # 8000, 80 bit
    common = chunk(b"COMM", struct.pack(">hIh", 1, 0 if size == 0 else len(TALK), 16) + rate, ">")
    data = b"SSND" + struct.pack(">III", size, 0, 0) + TALK.astype(">i2").tobytes()
    return b"FORM" + struct.pack(">I", form) + b"AIFF" + common + data


def put(data: bytes, name: str = "talk.wav") -> Make:
    return lambda folder: (folder / name).write_bytes(data)


def as_format(name: str, subtype: str | None = None, format: str | None = None) -> Make:
    """Written by libsndfile."""
    return lambda folder: sf.write(folder / name, TALK / 32768, RATE, subtype=subtype, format=format)


def floats(values: NDArray[np.float32], name: str = "talk.wav") -> Make:
    return lambda folder: sf.write(folder / name, values, RATE, subtype="FLOAT")


def cut(make: Make, name: str, count: int) -> Make:
    """The last ``count`` bytes are missing."""

    def write(folder: Path) -> None:
        make(folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:-count])

    return write


def twice(make: Make, name: str) -> Make:
    """Two files, one behind the other."""

    def write(folder: Path) -> None:
        make(folder)
        (folder / name).write_bytes((folder / name).read_bytes() * 2)

    return write


def flac_of_unknown_length(folder: Path) -> None:
    sf.write(folder / "talk.flac", TALK, RATE)
    data = bytearray((folder / "talk.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (folder / "talk.flac").write_bytes(data)


def adpcm_of_unknown_length(folder: Path) -> None:
    sf.write(folder / "talk.wav", TALK, RATE, subtype="IMA_ADPCM")
    data = (folder / "talk.wav").read_bytes()
    at = data.index(b"data") + 4
    (folder / "talk.wav").write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])


def mp3(change: Callable[[bytes], bytes]) -> Make:
    def write(folder: Path) -> None:
        sf.write(folder / "talk.mp3", TALK, RATE, format="MP3")
        (folder / "talk.mp3").write_bytes(change((folder / "talk.mp3").read_bytes()))

    return write


def with_tag(data: bytes) -> bytes:
    """An ID3v2 tag of 3000 bytes, as a picture makes it."""
    return b"ID3\x04\0\0" + bytes((0, 0, 3000 >> 7, 3000 & 127)) + bytes(3000) + data


def without_length(data: bytes) -> bytes:
    """The frame that says how long it is (Xing) is overwritten by an empty one."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    return data[:at] + bytes(160) + data[at + 160 :] if at >= 0 else data


def half_a_length(data: bytes) -> bytes:
    """It says half of its frames."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    frames = int.from_bytes(data[at + 8 : at + 12]) // 2
    return data[: at + 8] + frames.to_bytes(4) + data[at + 12 :]


def channels(*each: NDArray[np.float64]) -> Make:
    table = np.stack(each, axis=1)
    return lambda folder: sf.write(folder / "talk.wav", np.clip(np.rint(table), -32768, 32767).astype(np.int16), RATE)


def converted(name: str, *options: str) -> Make:
    def write(folder: Path) -> None:
        sf.write(folder / "in.wav", TALK, RATE)
        command = ["ffmpeg", "-v", "error", "-i", str(folder / "in.wav"), *options, str(folder / name)]
        subprocess.run(command, check=True)

    return write


FFMPEG = shutil.which("ffmpeg") is not None
