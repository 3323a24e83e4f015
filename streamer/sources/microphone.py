"""The microphone, through PortAudio: found by name, reopened when it comes back, with overruns counted.

PortAudio's callback runs in a real-time thread, which must not wait: blocks go into a bounded queue; when it is full,
they are dropped and counted.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from streamer.sources import SourceError

__all__ = ["Block", "Lost", "Microphone", "NoMicrophoneError", "Restored", "devices"]

BLOCK_SECONDS = 0.03
QUEUE_SECONDS = 5.0
POLL_SECONDS = 0.1
#: A device without a callback for so long is treated as gone.
SILENT_SECONDS = 2.0
FIRST_DELAY, MAX_DELAY = 0.2, 2.0
#: Seconds between blocks of silence while the device is gone, since a daemon ends a stream that sends nothing.
ALIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Block:
    """PCM s16le mono."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The device is gone; the source keeps trying to reopen it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The device is back after ``seconds``."""

    seconds: float


class NoMicrophoneError(Exception):
    """This machine has no microphone."""

    def __init__(self) -> None:
        super().__init__(
            "no microphone was found: plug one in, or give a recording to streamer transcribe or streamer enhance"
        )


def _portaudio() -> Any:
    """The module ``sounddevice``. Raises :class:`SourceError` that says what to install."""
    try:
        import sounddevice
    except OSError as error:  # the library is loaded on import
        raise SourceError("the microphone needs PortAudio: sudo apt install libportaudio2") from error
    except ImportError as error:
        raise SourceError("the microphone needs the package sounddevice: pip install sounddevice") from error
    return sounddevice


def devices() -> list[tuple[int, str, int, bool]]:
    """``(index, name, channels, default)`` of every input device."""
    sd = _portaudio()
    default = sd.default.device[0]
    return [
        (index, str(device["name"]), int(device["max_input_channels"]), index == default)
        for index, device in enumerate(sd.query_devices())
        if device["max_input_channels"] > 0
    ]


def find(wanted: str | None) -> int | None:
    """PortAudio's index of a device given by index, name or a part of the name; ``None``: the default device. Raises
    :class:`SourceError`, and :class:`NoMicrophoneError` where there is none at all."""
    known = devices()
    if not known:
        raise NoMicrophoneError
    if wanted is None:
        return None
    if wanted.isdigit():
        if int(wanted) in [index for index, *_ in known]:
            return int(wanted)
        raise SourceError(f"no microphone with the number {wanted}: streamer listen --list-devices shows what there is")
    exact = [index for index, name, *_ in known if name.casefold() == wanted.casefold()]
    partly = [(index, name) for index, name, *_ in known if wanted.casefold() in name.casefold()]
    if exact:
        return exact[0]
    if not partly:
        raise SourceError(f"no microphone is called {wanted!r}: streamer listen --list-devices shows what there is")
    if len(partly) > 1:
        names = "; ".join(f"{index} {name}" for index, name in partly)
        raise SourceError(f"several microphones are called {wanted!r}: {names}; give the number")
    return partly[0][0]


class Microphone:
    """An endless source. ``rate``: the preferred sample rate; :attr:`rate` is the device's actual one and never
    changes.

    ``overruns``: how often samples were lost, in the driver or because this process read too slowly. Raises
    :class:`SourceError` or :class:`NoMicrophoneError` if the device can't be opened at first; later that is only an
    interruption.
    """

    def __init__(self, device: str | None, rate: int) -> None:
        self._sd = _portaudio()
        self._wanted = device
        self._stream: Any = None
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=int(QUEUE_SECONDS / BLOCK_SECONDS))
        self.overruns = 0
        try:
            index = find(device)
            self.name = str(self._sd.query_devices(index, "input")["name"])
            self.rate = self._choose_rate(index, rate)
            self._open(index)
        except (self._sd.PortAudioError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            advice = "streamer listen --list-devices shows what there is, --device names one"
            raise SourceError(f"can't open the microphone {device or '(default)'}: {_line(error)}: {advice}") from error

    def events(self, stopped: Callable[[], bool]) -> Iterator[Block | Lost | Restored]:
        """Events until ``stopped()`` returns true; it is called several times a second."""
        heard, quiet = time.monotonic(), 0.0
        while not stopped():
            try:
                pcm = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                # time spent waiting, not the clock's: nothing comes to a stopped process either
                quiet += POLL_SECONDS
                if self._stream.active and quiet < SILENT_SECONDS:
                    continue
                yield Lost("it stopped" if not self._stream.active else f"nothing came for {SILENT_SECONDS:g} s")
                yield from self._reopen(stopped)
                if self._stream is None:
                    return
                yield Restored(time.monotonic() - heard)
                heard, quiet = time.monotonic(), 0.0
                continue
            heard, quiet = time.monotonic(), 0.0
            yield Block(pcm)

    def close(self) -> None:
        """Close the device, also one that is gone, where every call may fail."""
        if self._stream is not None:
            with contextlib.suppress(self._sd.PortAudioError):
                self._stream.abort()
            with contextlib.suppress(self._sd.PortAudioError):
                self._stream.close()
            self._stream = None

    # -- the device ------------------------------------------------------------------------------------------------

    def _choose_rate(self, index: int | None, rate: int) -> int:
        """The preferred rate if the device supports it, else the device's own: the stream is resampled anyway."""
        try:
            self._sd.check_input_settings(index, channels=1, dtype="int16", samplerate=rate)
        except self._sd.PortAudioError:
            return int(self._sd.query_devices(index, "input")["default_samplerate"])
        return rate

    def _open(self, index: int | None) -> None:
        stream = self._sd.RawInputStream(
            samplerate=self.rate,
            device=index,
            channels=1,
            dtype="int16",
            blocksize=int(self.rate * BLOCK_SECONDS),
            callback=self._called,
        )
        try:
            stream.start()
        except BaseException:
            stream.close()
            raise
        self._stream = stream

    def _called(self, data: Any, frames: int, at: Any, status: Any) -> None:
        """The callback, in PortAudio's thread."""
        if status.input_overflow:
            self.overruns += 1
        try:
            self._queue.put_nowait(bytes(data))
        except queue.Full:
            self.overruns += 1

    def _reopen(self, stopped: Callable[[], bool]) -> Iterator[Block]:
        """Retry with back-off until the device opens or ``stopped()``; yields a little silence now and then."""
        delay, last_silence = FIRST_DELAY, time.monotonic()
        while not stopped():
            self.close()
            try:
                # PortAudio makes its list of devices once: only a new start finds what was plugged in since.
                self._sd._terminate()
                self._sd._initialize()
                self._open(find(self._wanted))
                return
            except (self._sd.PortAudioError, ValueError, NoMicrophoneError):
                until = time.monotonic() + delay
                while time.monotonic() < until and not stopped():
                    time.sleep(0.05)
                delay = min(MAX_DELAY, delay * 2)
            if time.monotonic() - last_silence > ALIVE_SECONDS:
                last_silence = time.monotonic()
                yield Block(bytes(2 * int(self.rate * BLOCK_SECONDS)))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
