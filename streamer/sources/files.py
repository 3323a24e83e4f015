"""Recordings: files, pipes and standard input, read block by block, so that a day takes no more memory than a word."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from streamer.containers import HEAD, Container, container, id3_length, written
from streamer.sources import SourceError
from streamer.sources.channels import Channel, Mixer, scale_of, to_int16
from streamer.sources.converter import Converter
from streamer.sources.headers import Opened, opened
from streamer.sources.piped import mp3, ogg
from streamer.sources.raw import RawSound
from streamer.sources.source import Source

__all__ = ["AudioFile", "open_sound"]

BLOCK_SECONDS = 0.5
#: Seconds of a pipe's block, short so that live speech is passed on at once.
LIVE_SECONDS = 0.1
KNOWN = "wav, flac, ogg/opus, mp3, aiff, au and caf can; others if ffmpeg is installed"
#: Suffixes of raw formats, which have no magic number.
FFMPEG_NAMES = frozenset(
    {".ac3", ".eac3", ".dts", ".mp2", ".mka", ".spx", ".ape", ".wv", ".tta", ".g722", ".ts", ".mpg"}
)
RAW_NAMES = frozenset({".raw", ".pcm", ".s16", ".sw", ".bin", ".ul", ".al"})


class SoundDecoder(Protocol):
    """As ``soundfile.SoundFile``; ``frames``: 0 if unknown."""

    samplerate: int
    channels: int
    subtype: str
    frames: int

    def read(self, frames: int, *, dtype: str, always_2d: bool) -> NDArray[np.float32]: ...
    def close(self) -> None: ...


def open_sound(name: str, rate: int, channel: Channel | None, say: Callable[[str], None]) -> AudioFile | RawSound:
    """Open a recording by its name. ``-`` is standard input, which is raw PCM at ``rate`` Hz unless it begins as a
    known container. ``say`` gets notes for the user. Raises :class:`SourceError`.
    """
    if name != "-":
        return AudioFile(Path(name), channel=channel, say=say)
    if sys.stdin.buffer.isatty():
        raise SourceError("-: standard input is a terminal; pipe sound into it (a file, or s16le, mono, --rate Hz)")
    source = Source(sys.stdin.fileno(), owned=False)
    head = _head(source)
    if not head:
        raise SourceError("-: standard input is empty (0 bytes)")
    kind = container(head)
    if kind is None:
        return RawSound(source, rate, say)
    return AudioFile(None, source=source, channel=channel, say=say)


def _head(source: Source) -> bytes:
    """The first bytes; from a slow pipe only as many as are needed to recognise the format."""
    position, head = 0, b""
    while len(head) < HEAD and (piece := source.some(position)):
        head += piece
        position += len(piece)
        if len(head) >= 64 and head[:2] not in (b"ID", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa", b"\xff\xf1"):
            break
    return head[:HEAD] if len(head) < HEAD else source.at(0, HEAD)


class _Forward(sf.SoundFile):  # type: ignore[misc]
    """A file that hides ``seek``: libsndfile would seek in a FLAC of unknown length, and fail."""

    def seekable(self) -> bool:
        return False


class AudioFile:
    """One recording. Opening it reads the beginning; of a float WAV all samples, to find their scale.

    ``rate`` in Hz; ``channels``: how many there are, which become one; ``seconds``: duration, 0 if unknown. ``say``
    gets notes for the user. ``source``: an open source, instead of ``path``, which messages call ``name``. Raises
    :class:`SourceError`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        source: Source | None = None,
        channel: Channel | None = None,
        say: Callable[[str], None] = lambda message: None,
        name: str = "-",
    ) -> None:
        self.name = name if path is None else str(path)
        self._path, self._tell = path, say
        self._converter: Converter | None = None
        self._opened: Opened | None = None
        self._scale = 0.0
        self._source = _open(path) if source is None and path is not None else source
        assert self._source is not None
        self._live = self._source.size is None
        try:
            self._file = self._decoder(self._source)
            self.rate: int = self._file.samplerate
            self.channels: int = self._file.channels
            self._frames = 0 if self._live or self._file.frames >= 2**35 else self._file.frames
            self.seconds = self._frames / self.rate
            self._mixer = Mixer(self._file.channels, self.rate, channel, self._say)
            if self._opened is not None and self._opened.note:
                self._say(self._opened.note)
            self._float = self._file.subtype in ("FLOAT", "DOUBLE")
            if self._float and not self._live:
                self._measure()
        except BaseException as error:
            self.close()
            raise self._named(error) from error

    def blocks(self) -> Iterator[bytes]:
        """PCM s16le mono in blocks of half a second, shorter ones from a pipe.

        Raises :class:`SourceError` at NaN and infinite samples, and after the last sample if some are missing.
        """
        got = 0
        size = max(1, min(2**20, int(self.rate * (LIVE_SECONDS if self._live else BLOCK_SECONDS))))
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except sf.LibsndfileError as error:
                raise SourceError(f"{self.name}: damaged after {got / self.rate:.2f} s{_reason(error)}") from error
            except Exception as error:
                raise self._named(error) from error
            if not len(block):
                break
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                at = (got + int(bad.argmax())) / self.rate
                raise SourceError(
                    f"{self.name}: holds values that are no numbers (NaN or infinity), the first at {at:.3f} s"
                )
            if self._float:
                block = self._scaled(block, got)
            got += len(block)
            yield to_int16(self._mixer.mono(block)).tobytes()
        self._end(got)

    def interrupt(self) -> None:
        """End a read that waits for another program's samples, from any thread. The file still has to be closed."""
        if self._converter is not None:
            self._converter.interrupt()

    def close(self) -> None:
        with contextlib.suppress(AttributeError, sf.LibsndfileError):
            self._file.close()
        if self._converter is not None:
            self._converter.close()
        if self._source is not None:
            self._source.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        self._tell(f"{self.name}: {message}")

    def _decoder(self, source: Source) -> SoundDecoder:
        if source.size == 0:
            raise SourceError("is empty (0 bytes)")
        head = _head(source)
        if not head:
            raise SourceError("is empty (0 bytes)")
        kind = container(head)
        start = id3_length(head) if kind is not None and kind.name != "MP3" else 0
        if kind is not None and not kind.way:
            raise SourceError(f"is {kind.name}, not sound; {KNOWN}")
        if kind is None and self._path is not None and self._path.suffix.lower() in RAW_NAMES:
            raise SourceError(
                f"has no header; raw PCM goes in like this: streamer transcribe - --rate 16000 < {self.name}"
            )
        try:
            if kind is not None and kind.way == "ffmpeg":
                return self._convert(source, kind)
            found = self._by_library(source, kind, start)
        except sf.LibsndfileError as error:
            if kind is None and self._path is not None and self._path.suffix.lower() in FFMPEG_NAMES:
                kind = Container(self._path.suffix.lower(), "ffmpeg")
            if kind is not None and (kind.way == "ffmpeg" or shutil.which("ffmpeg")):
                return self._convert(source, kind)
            if kind is None and (text := written(head)) is not None:
                raise SourceError(f"is {text.name}, not sound; {KNOWN}") from error
            what = "is not audio that can be read" if kind is None else f"is {kind.name} that can't be read"
            raise SourceError(f"{what}{_reason(error)}; {KNOWN}") from error
        if found.frames == 0 and kind is not None and kind.name not in ("MP3", "Ogg"):
            found.close()
            raise SourceError("holds no samples")
        return found

    def _by_library(self, source: Source, kind: Container | None, start: int) -> SoundDecoder:
        if kind is not None and kind.name == "MP3":
            return mp3(source)
        if kind is not None and kind.name == "Ogg":
            return ogg(source, start, self._changed)
        self._opened = opened(kind.name if kind is not None else "", source, start)
        found: SoundDecoder = _Forward(self._opened.view)
        return found

    def _convert(self, source: Source, kind: Container) -> SoundDecoder:
        self._converter = Converter(source, self._path if source.size is not None else None, kind.name)
        try:
            self._opened = opened("WAV", self._converter.source)
            found: SoundDecoder = _Forward(self._opened.view)
        except (SourceError, sf.LibsndfileError):
            self._converter.check()
            raise
        return found

    def _changed(self, rate: int) -> None:
        raise SourceError(f"goes on at {rate} Hz, it began at {self.rate}: what follows was left out; cut it there")

    def _measure(self) -> None:
        """Find the peak of float samples in a separate pass."""
        assert self._source is not None
        peak = 0.0
        other = self._by_library(self._source, container(self._source.at(0, HEAD)), 0)
        try:
            while len(block := other.read(2**16, dtype="float32", always_2d=True)):
                finite = np.abs(block[np.isfinite(block)])
                peak = max(peak, float(finite.max(initial=0.0)))
        except sf.LibsndfileError:
            pass  # reported when the samples are read
        finally:
            other.close()
        self._scale = scale_of(peak)
        if self._scale != 1:
            self._say(f"its float samples reach {peak:.6g}, where full scale is 1: they are divided by {self._scale:g}")

    def _scaled(self, block: NDArray[np.float32], got: int) -> NDArray[np.float32]:
        """Samples on the right scale; for a pipe the first block decides it."""
        peak = float(np.abs(block).max())
        if not self._scale:
            self._scale = scale_of(peak) if peak > 64 else 1.0
            if self._scale != 1:
                self._say(
                    f"its float samples reach {peak:.6g}, where full scale is 1: they are divided by {self._scale:g}"
                )
        if self._live and peak > 2 * self._scale:
            at = (got + int(np.abs(block).max(axis=1).argmax())) / self.rate
            raise SourceError(
                f"{self.name}: holds a float sample of {peak:.6g} at {at:.2f} s, where full scale is {self._scale:g}: "
                "scale it, or give it as a file"
            )
        return block if self._scale == 1 else block / np.float32(self._scale)

    def _end(self, got: int) -> None:
        """Check that all announced samples came. Raises :class:`SourceError`."""
        behind = f"behind {got / self.rate:.2f} s"
        if self._converter is not None:
            with self._naming():
                self._converter.check()
        if not got:
            raise SourceError(f"{self.name}: holds no samples")
        missing = 0
        if self._opened is not None:
            missing = self._opened.missing
            if self._opened.end is not None and self._source is not None and self._converter is None:
                missing = self._opened.end - self._source.position
        if missing > 0:
            raise SourceError(f"{self.name}: is truncated: {missing} bytes are missing {behind}")
        if got < self._frames and self._opened is not None:
            raise SourceError(
                f"{self.name}: is truncated: {self.seconds:.2f} s announced, {got / self.rate:.2f} s found"
            )

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._named(error) from error

    def _named(self, error: BaseException) -> BaseException:
        """The error with the file's name in front."""
        if isinstance(error, SourceError) and not str(error).startswith(f"{self.name}: "):
            return SourceError(f"{self.name}: {error}")
        if isinstance(error, OSError):
            return SourceError(f"{self.name}: can't be read: {error.strerror or error}")
        return error


def _open(path: Path) -> Source:
    """Raises :class:`SourceError`."""
    try:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder, not an audio file")
        return Source(os.open(path, os.O_RDONLY))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except OSError as error:
        raise SourceError(f"{path}: can't be read: {error.strerror or error}") from error


def _reason(error: sf.LibsndfileError) -> str:
    """libsndfile's reason, unless it is misleading: for a bad MP3 it says that the file does not exist."""
    text = error.error_string.strip().rstrip(".")
    useless = ("File does not exist", "Format not recognised", "Supported file format but", "Unspecified internal")
    return "" if not text or text.startswith(useless) else f" ({text})"
