"""G.711: telephone sound, a byte a sample, to 16 bit (ITU-T G.711)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["alaw_to_pcm", "ulaw_to_pcm"]


def _ulaw() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    size = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype("<i2")


def _alaw() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = code >> 4 & 7
    size = (code & 0x0F) << 4
    size = np.where(segment == 0, size + 8, size + 0x108 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size).astype("<i2")


_ULAW, _ALAW = _ulaw(), _alaw()


def ulaw_to_pcm(data: bytes) -> bytes:
    """PCM s16le."""
    return _ULAW[np.frombuffer(data, np.uint8)].tobytes()


def alaw_to_pcm(data: bytes) -> bytes:
    """PCM s16le."""
    return _ALAW[np.frombuffer(data, np.uint8)].tobytes()
