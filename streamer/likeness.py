"""Whether bytes that are sent as 16 bit PCM look like something else: float32, 8 bit, big-endian, two channels.

A guess, said as one: nothing is refused for it. It must be right on real recordings, silence, noise and music, so each
kind has a mark that int16 sound does not have, and two windows of the stream must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.containers import HEAD, Container, container

__all__ = ["KINDS", "Likeness", "likeness"]

#: Bytes of a window, and how many windows are looked at, silent ones not counted.
WINDOW = 8192
WINDOWS = 16
#: So much of a window must speak for a kind.
MOST = 0.95
#: Correlation of neighbouring samples: of sound, and of what is no sound.
SMOOTH, ROUGH = 0.6, 0.3
#: float32 from 2^-24 to 2^16, as the upper half of its bits.
LOWEST, HIGHEST = 0x3380, 0x4780

#: What it looks like, and what to do.
KINDS = {
    "float32": "32 bit float: send int16, each sample times 32767",
    "float64": "64 bit float: send int16, each sample times 32767",
    "int32": "32 bit integers: send int16, the upper 16 bits of each",
    "uint8": "unsigned 8 bit: send int16, (sample - 128) * 256",
    "mu-law": "G.711 mu-law: decode it to int16, or put it into a WAV",
    "A-law": "G.711 A-law: decode it to int16, or put it into a WAV",
    "big-endian": "big-endian 16 bit: swap the bytes of each sample",
    "stereo": "two channels, one sample of each in turn: send one channel",
    "half_empty": "every second sample is 0: send one channel of 16 bit samples",
}


def likeness(window: bytes) -> str:
    """A key of :data:`KINDS` for what the window (an even number of bytes) looks like; empty: int16 or not clear."""
    pcm = np.frombuffer(window, "<i2")
    if len(pcm) < 256 or np.count_nonzero(pcm) < len(pcm) // 8:
        return ""
    return _floats(pcm) or _bytes(window) or _halves(pcm) or _orders(window, pcm) or _pairs(pcm)


@dataclass
class Likeness:
    """Looks at the beginning of one stream. ``refused``: a container, by the first bytes; ``kind``: of two windows."""

    done: bool = False
    refused: Container | None = None
    kind: str = ""
    _data: bytearray = field(default_factory=bytearray)
    _head: bytes = b""
    _seen: list[str] = field(default_factory=list)
    _windows: int = 0

    def push(self, data: bytes) -> bool:
        """The next bytes; True once ``refused`` or ``kind`` is set, after which nothing more is looked at."""
        if self.done:
            return False
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
            self.refused = container(self._head)
        self._data += data[: WINDOW * WINDOWS]
        while not self.refused and not self.kind and len(self._data) >= WINDOW and self._windows < WINDOWS:
            self._look(bytes(self._data[:WINDOW]))
            del self._data[:WINDOW]
        self.done = self.refused is not None or bool(self.kind) or self._windows >= WINDOWS
        if self.done:
            self._data.clear()
        return self.refused is not None or bool(self.kind)

    def end(self) -> bool:
        """No more comes: of a stream that was shorter than two windows one must do. As :meth:`push`."""
        if self.done:
            return False
        self.done = True
        if len(self._data) >= WINDOW // 4:
            self._look(bytes(self._data[: len(self._data) // 8 * 8]))
        if len(self._seen) <= 2 and len(set(self._seen)) == 1:
            self.kind = self._seen[0]
        return bool(self.kind)

    def _look(self, window: bytes) -> None:
        if any(window):
            self._windows += 1
            found = likeness(window)
            if found and found in self._seen:
                self.kind = found
            self._seen.append(found)


def _in_band(halves: NDArray[np.int16]) -> NDArray[np.bool_]:
    magnitude = halves.view(np.uint16) & 0x7FFF
    inside: NDArray[np.bool_] = (magnitude >= LOWEST) & (magnitude <= HIGHEST)
    return inside


def _floats(pcm: NDArray[np.int16]) -> str:
    """The upper half of a float has an exponent in it, in a narrow band; the lower halves are spread over all."""
    for name, parts in (("float64", 4), ("float32", 2)):
        table = pcm[: len(pcm) // parts * parts].reshape(-1, parts)
        some = table.any(axis=1)
        upper, lower = table[some, -1], table[some, :-1]
        if parts == 4:  # 11 bits of exponent instead of 8
            magnitude = upper.view(np.uint16) & 0x7FFF
            inside = (magnitude >= 0x3E70) & (magnitude <= 0x40F0)
        else:
            inside = _in_band(upper)
        if len(upper) < 64 or inside.mean() < MOST or _in_band(np.ascontiguousarray(lower)).mean() > 0.5:
            continue
        if 0.1 < (upper < 0).mean() < 0.9 and len(np.unique(upper)) >= 16:
            return name
    return ""


def _bytes(window: bytes) -> str:
    """Unsigned 8 bit: both bytes of every sample stay around 128, and take many values."""
    raw = np.frombuffer(window, np.uint8).reshape(-1, 2)
    around = min(((raw >= 64) & (raw <= 192)).mean(axis=0))
    many = min(len(np.unique(raw[:, 0])), len(np.unique(raw[:, 1])))
    silent = ((raw >= 120) & (raw <= 136)).mean() >= MOST
    return "uint8" if silent or (around >= MOST and many >= 16) else ""


def _halves(pcm: NDArray[np.int16]) -> str:
    """Of 32 bit integers the lower halves are nothing, or noise."""
    for one, other in ((pcm[0::2], pcm[1::2]), (pcm[1::2], pcm[0::2])):
        if np.count_nonzero(other) < len(other) // 2 or np.count_nonzero(one) > (1 - MOST) * len(one) / 5:
            continue
        return "half_empty" if _correlation(other.astype(np.float64), 1) > 0 else ""  # a tone may be 0 there, too
    low, high = pcm[0::2].astype(np.float64), pcm[1::2].astype(np.float64)
    if _correlation(high, 1) > SMOOTH and abs(_correlation(low, 1)) < 0.1 and 17_000 < low.std() < 21_000:
        return "int32"
    return ""


def _orders(window: bytes, pcm: NDArray[np.int16]) -> str:
    """What is rough as int16 and smooth as something else."""
    if _quiet_swapped(pcm):
        return "big-endian"
    if _correlation(pcm.astype(np.float64), 1) > ROUGH:
        return ""
    swapped = pcm.byteswap().astype(np.float64)
    if (
        len(np.unique(pcm & 0xFF)) > 32
        and len(np.unique(pcm >> 8)) > 64
        and (_correlation(swapped, 1) > SMOOTH or (pcm.std() > 8000 and swapped.std() < pcm.std() / 4))
    ):
        return "big-endian"
    raw = np.frombuffer(window, np.uint8)
    others = {"uint8": raw.astype(np.float64), "mu-law": _MU_LAW[raw], "A-law": _A_LAW[raw]}
    best = max(others, key=lambda name: _both_ways(others[name]))
    return best if _both_ways(others[best]) > SMOOTH else ""


def _both_ways(values: NDArray[np.float64]) -> float:
    """The correlation of neighbours, within pairs and between them: the smaller one."""
    centred = values - values.mean()
    pairs = len(centred) // 2 * 2
    power = float(np.dot(centred, centred)) / 2
    if power <= 0:
        return 0.0
    within = float(np.dot(centred[0:pairs:2], centred[1:pairs:2]))
    between = float(np.dot(centred[1 : pairs - 1 : 2], centred[2:pairs:2]))
    return min(within, between) / power


def _quiet_swapped(pcm: NDArray[np.int16]) -> bool:
    """Quiet sound in the other byte order: the lower byte is but the sign of the upper one."""
    low, high = pcm.view(np.uint16) & 0xFF, pcm.view(np.uint16) >> 8
    signs = np.where(high >= 128, 255, 0)
    return bool((low == signs).mean() >= MOST and 0.1 < (high >= 128).mean() < 0.9 and len(np.unique(high)) > 3)


def _pairs(pcm: NDArray[np.int16]) -> str:
    """Two channels in turn: neighbours within a pair differ otherwise than those of two pairs, in every piece.

    Medians, as the steps of a square wave may all lie between two pairs.
    """
    near = far = apart = left = right = pieces = 0
    for start in range(0, len(pcm) - 511, 512):
        piece = pcm[start : start + 512].astype(np.float64)
        within, between = np.abs(piece[1::2] - piece[0::2]), np.abs(piece[2::2] - piece[1:-1:2])
        if piece.std() < 20 or max(np.count_nonzero(within), np.count_nonzero(between)) < len(between) // 2:
            continue
        pieces += 1
        second = _correlation(piece, 2)
        a, b = float(np.median(within)), float(np.median(between))
        near += a < 0.6 * b and second > 0.6
        far += b < 0.6 * a and second > 0.6
        louder = _louder(piece) if second > 0.6 else 0.0
        left += louder > 0.3
        right += louder < -0.3
        apart += abs(_correlation(piece, 1)) < 0.35 and second > 0.75
    return "stereo" if pieces >= 4 and max(near, far, apart, left, right) >= MOST * pieces else ""


def _louder(piece: NDArray[np.float64]) -> float:
    """How much more the even samples stand out of their neighbours than the odd ones, as a share of the power."""
    inner = piece[1:-1]
    out = (inner - (piece[:-2] + piece[2:]) / 2) * inner
    return float((out[1::2].sum() - out[0::2].sum()) / max(1.0, float(np.dot(piece, piece))))


def _correlation(values: NDArray[np.float64], lag: int) -> float:
    centred = values - values.mean()
    power = float(np.dot(centred, centred))
    return float(np.dot(centred[lag:], centred[:-lag])) / power if power > 0 else 0.0


def _mu_law() -> NDArray[np.float64]:
    """ITU-T G.711, table 2a."""
    code = ~np.arange(256) & 0xFF
    size = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype(np.float64)


def _a_law() -> NDArray[np.float64]:
    """ITU-T G.711, table 1a."""
    code = np.arange(256) ^ 0x55
    part, base = code >> 4 & 7, ((code & 0x0F) << 4) + 8
    size = np.where(part > 0, base + 0x100 << np.maximum(part - 1, 0), base)
    return np.where(code & 0x80, size, -size).astype(np.float64)


_MU_LAW, _A_LAW = _mu_law(), _a_law()
