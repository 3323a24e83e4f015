"""Notes to a standard MIDI file, or to sound by a simple synthesiser."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.generate import Note

__all__ = ["midi", "synthesise"]

#: Ticks of a quarter note, which lasts half a second where a file does not say otherwise: 960 ticks a second.
QUARTER, SECOND = 480, 960
VELOCITY = 80
RATE = 22050


def midi(notes: Sequence[Note]) -> bytes:
    """A file of format 0 (Standard MIDI Files 1.0): one track, one piano."""
    # at the same tick what ends comes before what begins
    events = [(round(note.start * SECOND), 1, bytes((0x90, note.pitch, VELOCITY))) for note in notes]
    events += [(round(note.end * SECOND), 0, bytes((0x80, note.pitch, 0))) for note in notes]
    track, now = bytearray(), 0
    for tick, _, message in sorted(events):
        track += _number(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"  # end of track
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, QUARTER)
    return head + b"MTrk" + struct.pack(">I", len(track)) + bytes(track)


def _number(value: int) -> bytes:
    """A number in MIDI's form: seven bits a byte, the highest first; every byte but the last has its top bit set."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(0x80 | value & 0x7F)
    return bytes(reversed(parts))


def synthesise(notes: Sequence[Note], rate: int = RATE) -> NDArray[np.int16]:
    """Sound of the notes: five decaying harmonics each, and a tenth of a second for the last note's decay."""
    end = max((note.end for note in notes), default=0.0)
    sound = np.zeros(round((end + 0.1) * rate))
    for note in notes:
        start, count = round(note.start * rate), round((note.end + 0.1 - note.start) * rate)
        time = np.arange(min(count, len(sound) - start)) / rate
        fade = (
            np.exp(-3 * time) * np.clip((note.end + 0.1 - note.start - time) / 0.1, 0, 1) * np.clip(time / 0.005, 0, 1)
        )
        pitch = 2 * np.pi * 440 * 2 ** ((note.pitch - 69) / 12)
        for harmonic in range(1, 6):
            sound[start : start + len(time)] += fade * np.sin(harmonic * pitch * time) / harmonic**2
    return np.round(32767 * 0.9 * sound / max(1.0, float(np.abs(sound).max(initial=0)))).astype(np.int16)
