"""Plays sound that arrives in small pieces on a device with its own clock.

The device's clock differs from the microphone's: early sound waits in a bounded buffer, beyond which the oldest is
dropped; when the buffer is empty, silence is played. Both are counted.
"""

from __future__ import annotations

import threading
from typing import Any

from streamer.commands import CommandError

__all__ = ["Loudspeaker", "devices"]

#: Seconds of sound that are buffered before playing begins, and the most that may be buffered.
FIRST_SECONDS, MOST_SECONDS = 0.06, 0.4


def _portaudio() -> Any:
    from streamer.sources import SourceError
    from streamer.sources.microphone import _portaudio as load

    try:
        return load()
    except SourceError as error:
        raise CommandError(str(error).replace("the microphone needs", "sound needs"), 2) from error


def devices() -> list[tuple[int, str, int, bool]]:
    """``(index, name, channels, default)`` of every output device."""
    sd = _portaudio()
    default = sd.default.device[1]
    return [
        (index, str(device["name"]), int(device["max_output_channels"]), index == default)
        for index, device in enumerate(sd.query_devices())
        if device["max_output_channels"] > 0
    ]


class Loudspeaker:
    """``device``: number, name or part of the name; ``None``: the system's default. ``dropped`` and ``missed``: seconds
    of sound dropped, and of silence played for lack of sound. Raises :class:`CommandError` if it can't be opened at
    ``rate``."""

    def __init__(self, device: str | None, rate: int) -> None:
        sd = _portaudio()
        self.rate = rate
        self.dropped = self.missed = 0.0
        self._waiting = bytearray()
        self._playing = False
        self._lock = threading.Lock()
        wanted = int(device) if device is not None and device.isdigit() else device
        try:
            self.name = str(sd.query_devices(wanted, "output")["name"])
            self._stream = sd.RawOutputStream(
                samplerate=rate, device=wanted, channels=1, dtype="int16", callback=self._called
            )
            self._stream.start()
        except (sd.PortAudioError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CommandError(
                f"can't play on {device or '(default)'} at {rate} Hz: {reason}: choose another with --output-device", 2
            ) from error

    def write(self, pcm: bytes) -> None:
        """PCM s16le. Never blocks."""
        with self._lock:
            self._waiting += pcm
            excess = len(self._waiting) - 2 * int(MOST_SECONDS * self.rate)
            if excess > 0:
                del self._waiting[:excess]
                self.dropped += excess / 2 / self.rate

    def close(self) -> None:
        """Play what is buffered, then close."""
        while self._playing and self._waiting and self._stream.active:
            threading.Event().wait(0.02)
        self._stream.stop()
        self._stream.close()

    def _called(self, out: Any, frames: int, at: Any, status: Any) -> None:
        """The callback, in PortAudio's thread."""
        with self._lock:
            self._playing = self._playing or len(self._waiting) >= 2 * int(FIRST_SECONDS * self.rate)
            count = min(len(out), len(self._waiting)) if self._playing else 0
            out[:count] = bytes(self._waiting[:count])
            out[count:] = bytes(len(out) - count)
            del self._waiting[:count]
            if self._playing and count < len(out):
                self.missed += (len(out) - count) / 2 / self.rate
                self._playing = False  # wait until there is enough again
