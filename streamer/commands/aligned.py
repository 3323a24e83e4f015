"""Writes a model's sound with its delay removed, at the sample rate and with the length of the input."""

from __future__ import annotations

import base64
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.commands import CommandError
from streamer.commands.outputs import CommandOutput
from streamer.commands.transcribe import Job, TranscribeJob
from streamer.streams.resampler import Resampler

if TYPE_CHECKING:
    from streamer.commands.backends import Backend
    from streamer.commands.screen import Screen
    from streamer.sources.channels import Channel
    from streamer.sources.files import AudioFile
    from streamer.sources.raw import RawSound

__all__ = ["Conversion", "Out", "SoundAligner", "check", "out_to", "pcm_of"]

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}
#: Bound on sound that was sent and not yet written, so that a slow reader of standard output also slows down the input.
AHEAD_SECONDS = 10.0


def check(file: str, output: str | None) -> str:
    """Check the output before any work. Raises :class:`CommandError` if it can't be written."""
    if output is None:
        raise CommandError(f"where to? streamer enhance {file} -o FILE.wav (-o - for raw PCM into a pipe)", 2)
    if output == "-":
        if sys.stdout.isatty():
            raise CommandError("-o -: standard output is a terminal, and raw PCM is for a pipe: name a file", 2)
        return output
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise CommandError(f"-o {output}: sound goes into a file {', '.join(FORMATS)}, or to - as raw PCM", 2)
    if not path.parent.is_dir():
        raise CommandError(f"-o {output}: there is no folder {path.parent}: make it first", 2)
    if file != "-" and path.exists() and Path(file).exists() and path.samefile(file):
        raise CommandError(f"-o {output}: is the input itself: choose another name", 2)
    return output


def pcm_of(event: dict[str, Any]) -> bytes:
    return base64.b64decode(event["pcm"])


class Out(Protocol):
    def write(self, pcm: bytes) -> None: ...
    def close(self) -> None: ...


class _Pipe:
    """Raw PCM to standard output, as it comes."""

    def write(self, pcm: bytes) -> None:
        sys.stdout.buffer.write(pcm)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Does nothing: standard output belongs to the process."""


class _File:
    def __init__(self, path: Path, rate: int) -> None:
        import soundfile

        try:
            self._file = soundfile.SoundFile(
                os.fsencode(path), "w", samplerate=rate, channels=1, format=FORMATS[path.suffix.lower()]
            )
        except (soundfile.LibsndfileError, OSError) as error:
            reason = getattr(error, "error_string", None) or str(error)
            raise CommandError(f"can't write {path}: {reason.rstrip('.')}") from error

    def write(self, pcm: bytes) -> None:
        self._file.write(np.frombuffer(pcm, "<i2"))

    def close(self) -> None:
        self._file.close()


def out_to(output: str, rate: int) -> Out:
    """The output ``-``, or a file whose suffix gives the format. Raises :class:`CommandError`."""
    return _Pipe() if check("-", output) == "-" else _File(Path(output), rate)


class SoundAligner:
    """Resamples output at ``given`` Hz, ``delay`` samples late, to ``rate`` Hz, aligned in time with the input."""

    def __init__(self, given: int, delay: int, rate: int) -> None:
        self._skip = delay
        self._resampler = Resampler(given, rate, min(given, rate))
        self.written = 0

    def push(self, pcm: bytes, length: int) -> bytes:
        """Take output. ``length``: input samples so far; output beyond it comes from padding of the last chunk."""
        samples = np.frombuffer(pcm, "<i2")
        start = min(self._skip, len(samples))
        self._skip -= start
        return self._count(self._resampler.push(samples[start:]), length)

    def finish(self, length: int) -> bytes:
        """The remaining samples, so that there are ``length`` in all."""
        return self._count(self._resampler.finish(), length)

    def _count(self, samples: NDArray[np.int16], length: int) -> bytes:
        samples = samples[: max(0, length - self.written)]
        self.written += len(samples)
        return samples.astype("<i2").tobytes()


class Conversion(TranscribeJob):
    """:class:`TranscribeJob`'s threads for one input, with sound as output."""

    def __init__(
        self, backend: Backend, job: Job, rate: int, output: str, screen: Screen | None, channel: Channel | None = None
    ) -> None:
        super().__init__(backend, [job], rate, CommandOutput([], {}), screen, channel)
        self._job = job
        self._output = output
        self._to: Out | None = None
        self._aligner: SoundAligner | None = None
        self._source_rate = 0
        self._sent = 0
        self._room = threading.Condition()

    def run(self, workers: int) -> None:
        try:
            super().run(workers)
        finally:
            if self._to is not None:
                self._to.close()

    def _pump(self, job: Job, source: AudioFile | RawSound, feed: Any) -> None:
        """Runs in the feeding thread; no output comes before the first input."""
        given = int(feed.ready.get("output_rate") or 0)
        if not given:
            raise CommandError(
                f"the model {feed.ready['model']} gives no sound back: name one of the task enhance (streamer models)",
                2,
            )
        self._to = out_to(self._output, source.rate)
        self._source_rate = source.rate
        self._aligner = SoundAligner(given, round(float(feed.ready["latency_seconds"]) * given), source.rate)
        super()._pump(job, source, _Measured(feed, self))

    def sent(self, samples: int) -> None:
        """Wait until little enough sound is in flight."""
        assert self._aligner is not None
        with self._room:
            self._sent += samples
            bound = AHEAD_SECONDS * self._source_rate
            while self._sent - self._aligner.written > bound and not self._stopped and not self._job.ended.is_set():
                self._room.wait(0.5)

    def _sound(self, job: Job, event: dict[str, Any]) -> None:
        assert self._aligner is not None
        self._write(self._aligner.push(pcm_of(event), self._sent))

    def _show(self, job: Job, event: dict[str, Any] | None) -> None:
        if event is not None and event["type"] == "end" and self._aligner is not None:
            self._write(self._aligner.finish(self._sent))
        super()._show(job, event)

    def _write(self, pcm: bytes) -> None:
        assert self._to is not None
        self._to.write(pcm)
        with self._room:
            self._room.notify()


class _Measured:
    """A feed that counts its samples."""

    def __init__(self, feed: Any, conversion: Conversion) -> None:
        self._feed, self._conversion = feed, conversion

    def send(self, pcm: bytes) -> None:
        self._conversion.sent(len(pcm) // 2)
        self._feed.send(pcm)

    def end(self) -> None:
        self._feed.end()
