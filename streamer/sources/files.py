"""Audio files and raw PCM on standard input, read block by block: a day takes no more memory than a word."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from streamer.sources import SourceError

__all__ = ["AudioFile", "RawStdin", "to_int16"]

BLOCK_SECONDS = 0.5
#: A WAV that was written into a pipe can't know its length and says one of these.
UNKNOWN_SIZES = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFDB, 0xFFFFFFDB, 0x7FFFF000})
KNOWN = "wav, flac, ogg/opus and mp3 can"
#: First bytes of files that are no raw PCM.
CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}


def to_int16(block: NDArray[np.float32]) -> NDArray[np.int16]:
    """``[samples, channels]`` float32 in [-1, 1] to ``[samples]`` int16: mean of the channels, what is louder clips."""
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    pcm: NDArray[np.int16] = np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


class AudioFile:
    """One recording. Opening it reads the header only. Raises :class:`SourceError`.

    ``rate`` in Hz, ``seconds`` as the header says (0 if it doesn't), ``note`` what the user should know.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if not path.exists():
            raise SourceError(f"{path}: no such file")
        if path.is_dir():
            raise SourceError(f"{path}: is a folder, not an audio file")
        try:
            size = path.stat().st_size if path.is_file() else None
            if size == 0:
                raise SourceError(f"{path}: is empty (0 bytes)")
            self._missing = _missing_bytes(path, size) if size is not None else 0
            self._file = sf.SoundFile(str(path))
        except sf.LibsndfileError as error:
            raise SourceError(f"{path}: is not audio that can be read{_reason(error)}; {KNOWN}") from error
        except TypeError as error:  # soundfile asks for the format of what it takes for headerless data
            raise SourceError(
                f"{path}: has no header; raw PCM goes in like this: streamer transcribe - --rate 16000 < {path}"
            ) from error
        except OSError as error:
            raise SourceError(f"{path}: can't be read: {error.strerror or error}") from error
        self.rate: int = self._file.samplerate
        frames = self._file.frames
        if frames == 0:
            self.close()
            raise SourceError(f"{path}: holds no samples")
        self._frames = frames if frames < 2**62 else 0  # libsndfile's "unknown"
        self.seconds = self._frames / self.rate
        channels: int = self._file.channels
        self.note = f"{channels} channels, mixed down to one" if channels > 1 else ""

    def blocks(self) -> Iterator[bytes]:
        """PCM s16le mono, half a second a time.

        Raises :class:`SourceError` at numbers that are none, and behind the last sample if some are missing.
        """
        got = 0
        size = max(1, int(self.rate * BLOCK_SECONDS))
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except sf.LibsndfileError as error:
                raise SourceError(f"{self.name}: damaged after {got / self.rate:.2f} s{_reason(error)}") from error
            if not len(block):
                break
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                at = (got + int(bad.argmax())) / self.rate
                raise SourceError(
                    f"{self.name}: holds values that are no numbers (NaN or infinity), the first at {at:.3f} s"
                )
            got += len(block)
            yield to_int16(block).tobytes()
        if self._missing:
            raise SourceError(
                f"{self.name}: is truncated: {self._missing} bytes are missing behind {got / self.rate:.2f} s"
            )
        if got < self._frames:
            raise SourceError(
                f"{self.name}: is truncated: {self.seconds:.2f} s announced, {got / self.rate:.2f} s found"
            )

    def close(self) -> None:
        self._file.close()


class RawStdin:
    """PCM s16le mono from a pipe, as it comes: nothing waits for a block to fill. Raises :class:`SourceError`."""

    seconds = 0.0
    note = ""

    def __init__(self, rate: int, stream: BinaryIO | None = None) -> None:
        self.name = "-"
        self.rate = rate
        self._stream = stream or sys.stdin.buffer
        if self._stream.isatty():
            raise SourceError("-: standard input is a terminal; pipe raw PCM into it (s16le, mono, --rate Hz)")

    def blocks(self) -> Iterator[bytes]:
        """Whole samples. Raises :class:`SourceError` behind the last one if half a sample is left over."""
        rest = b""
        total = 0
        while data := os.read(self._stream.fileno(), 2**16):
            if not total and data[:4] in CONTAINERS:
                kind = CONTAINERS[data[:4]]
                raise SourceError(f"-: this is a {kind} file, not raw PCM; give its name instead of -")
            total += len(data)
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            if whole:
                yield data[:whole]
        if not total:
            raise SourceError("-: standard input is empty (0 bytes)")
        if rest:
            raise SourceError(f"-: {total} bytes are no whole number of 16-bit samples: the last byte was left out")

    def close(self) -> None:
        """Standard input belongs to the process."""


def _reason(error: sf.LibsndfileError) -> str:
    """libsndfile's, where it knows one: of what is no MP3 it says that the file does not exist."""
    text = error.error_string.strip().rstrip(".")
    return "" if text.startswith(("File does not exist", "Format not recognised")) else f" ({text})"


def _missing_bytes(path: Path, size: int) -> int:
    """Bytes that the ``data`` chunk of a WAV promises and the file does not hold; libsndfile plays what is there."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            kind, length = struct.unpack("<4sI", chunk)
            if kind == b"data":
                return 0 if length in UNKNOWN_SIZES else max(0, file.tell() + length - size)
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0
