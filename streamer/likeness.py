"""Detects other formats in bytes that are sent as 16 bit PCM: float32, 8 bit, big-endian, two channels.

The result is a warning; nothing is refused because of it. Recordings, silence, noise and music must cause no false
alarm. Therefore each kind is recognised by a feature that int16 sound does not have, and two windows of the stream must
agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.containers import HEAD, Container, container

__all__ = ["KINDS", "Likeness", "likeness"]

#: Length of a window in bytes, and the number of windows that are examined, without silent ones.
WINDOW = 8192
WINDOWS = 16
#: The examination ends early after this many windows that are smooth, louder than this rms, and look like int16: a
#: window takes as long as a chunk of a small model.
PLAIN = 4
LOUD = 200
#: The share of a window that must match a kind.
MOST = 0.95
#: Correlation of neighbouring samples: above the first it is sound, below the second it is not.
SMOOTH, ROUGH = 0.6, 0.3
#: float32 from 2^-24 to 2^16, as the upper half of its bits.
LOWEST, HIGHEST = 0x3380, 0x4780

#: Kinds of input, and the advice for each.
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
    """The key of :data:`KINDS` that the window (an even number of bytes) matches; empty for int16 or if unclear."""
    pcm = np.frombuffer(window, "<i2")
    if len(pcm) < 256 or np.count_nonzero(pcm) < len(pcm) // 8:
        return ""
    return _floats(pcm) or _bytes(window) or _halves(pcm) or _orders(window, pcm) or _pairs(pcm)


@dataclass
class Likeness:
    """Examines the beginning of one stream. ``refused``: the container that begins with the first bytes, if any.
    ``kind``: the kind that two windows have in common; empty: none."""

    done: bool = False
    refused: Container | None = None
    kind: str = ""
    _data: bytearray = field(default_factory=bytearray)
    _head: bytes = b""
    _seen: list[str] = field(default_factory=list)
    _windows: int = 0
    _plain: int = 0

    def push(self, data: bytes) -> bool:
        """Examine the next bytes. Returns True when they set ``refused`` or ``kind``; later bytes are ignored."""
        if self.done:
            return False
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
            self.refused = container(self._head)
        self._data += data[: WINDOW * WINDOWS]
        while not self._enough() and len(self._data) >= WINDOW:
            self._examine(bytes(self._data[:WINDOW]))
            del self._data[:WINDOW]
        self.done = self._enough()
        if self.done:
            self._data.clear()
        return self.refused is not None or bool(self.kind)

    def _enough(self) -> bool:
        seen = self.refused is not None or bool(self.kind)
        return seen or self._windows >= WINDOWS or self._plain >= PLAIN

    def end(self) -> bool:
        """End the stream. If it was shorter than two windows, a single window decides. Returns as :meth:`push`."""
        if self.done:
            return False
        self.done = True
        if len(self._data) >= WINDOW // 4:
            self._examine(bytes(self._data[: len(self._data) // 8 * 8]))
        if len(self._seen) <= 2 and len(set(self._seen)) == 1:
            self.kind = self._seen[0]
        return bool(self.kind)

    def _examine(self, window: bytes) -> None:
        if window.count(0) == len(window):
            return
        self._windows += 1
        found = likeness(window)
        if found and found in self._seen:
            self.kind = found
        self._seen.append(found)
        self._plain += not found and _plain(window)


def _plain(window: bytes) -> bool:
    """Whether the window is smooth and loud as int16."""
    pcm = np.frombuffer(window, "<i2").astype(np.float64)
    return bool(pcm.std() > LOUD and _correlation(pcm, 1) > SMOOTH)


def _share(flags: NDArray[np.bool_]) -> float:
    return np.count_nonzero(flags) / flags.size


def _in_band(halves: NDArray[np.int16], lowest: int, highest: int) -> NDArray[np.bool_]:
    """Which values, without their signs, are from ``lowest`` to ``highest``."""
    inside: NDArray[np.bool_] = (halves.view(np.uint16) & 0x7FFF) - np.uint16(lowest) <= highest - lowest
    return inside


def _floats(pcm: NDArray[np.int16]) -> str:
    """Floats: the exponent, in the upper half, is in a narrow band; the lower halves are spread over all values."""
    for name, parts in (("float64", 4), ("float32", 2)):
        table = pcm[: len(pcm) // parts * parts].reshape(-1, parts)
        every = np.ascontiguousarray(table[:, -1])
        lowest, highest = (0x3E70, 0x40F0) if parts == 4 else (LOWEST, HIGHEST)  # 11 bits of exponent, or 8
        inside = _in_band(every, lowest, highest)
        if np.count_nonzero(inside) < 64:
            continue
        some = table.any(axis=1)
        upper, lower = every[some], np.ascontiguousarray(table[some, :-1])
        if _share(inside) * len(every) < MOST * len(upper) or _share(_in_band(lower, LOWEST, HIGHEST)) > 0.5:
            continue
        if 0.1 < (upper < 0).mean() < 0.9 and len(np.unique(upper)) >= 16:
            return name
    return ""


def _bytes(window: bytes) -> str:
    """Unsigned 8 bit: both bytes of every sample stay around 128, and take many values."""
    raw = np.frombuffer(window, np.uint8).reshape(-1, 2)
    around = raw - np.uint8(64) <= 128
    if _share(around) < MOST:
        return ""
    if _share(raw - np.uint8(120) <= 16) >= MOST:
        return "uint8"
    many = min(np.count_nonzero(np.bincount(column)) for column in raw.T)
    return "uint8" if min(_share(column) for column in around.T) >= MOST and many >= 16 else ""


def _halves(pcm: NDArray[np.int16]) -> str:
    """32 bit integers: the lower halves are zero, or noise."""
    for one, other in ((pcm[0::2], pcm[1::2]), (pcm[1::2], pcm[0::2])):
        if np.count_nonzero(other) < len(other) // 2 or np.count_nonzero(one) > (1 - MOST) * len(one) / 5:
            continue
        return "half_empty" if _correlation(other.astype(np.float64), 1) > 0 else ""  # a tone may be 0 there, too
    low, high = pcm[0::2].astype(np.float64), pcm[1::2].astype(np.float64)
    if _correlation(high, 1) > SMOOTH and abs(_correlation(low, 1)) < 0.1 and 17_000 < low.std() < 21_000:
        return "int32"
    return ""


def _orders(window: bytes, pcm: NDArray[np.int16]) -> str:
    """Other byte orders and encodings: the window is rough as int16 and smooth as one of them."""
    if _quiet_swapped(pcm):
        return "big-endian"
    if _correlation(pcm.astype(np.float64), 1) > ROUGH:
        return ""
    swapped = pcm.byteswap().astype(np.float64)
    if (
        np.count_nonzero(np.bincount(pcm & 0xFF)) > 32
        and np.count_nonzero(np.bincount(pcm.view(np.uint16) >> 8)) > 64
        and (_correlation(swapped, 1) > SMOOTH or (pcm.std() > 8000 and swapped.std() < pcm.std() / 4))
    ):
        return "big-endian"
    raw = np.frombuffer(window, np.uint8)
    others = {"uint8": raw.astype(np.float64), "mu-law": _MU_LAW[raw], "A-law": _A_LAW[raw]}
    smooth, best = max((_both_ways(values), name) for name, values in others.items())
    return best if smooth > SMOOTH else ""


def _both_ways(values: NDArray[np.float64]) -> float:
    """The correlation of neighbouring samples, within pairs and between pairs; the smaller of the two."""
    centred = values - values.mean()
    pairs = len(centred) // 2 * 2
    power = float(np.dot(centred, centred)) / 2
    if power <= 0:
        return 0.0
    within = float(np.dot(centred[0:pairs:2], centred[1:pairs:2]))
    between = float(np.dot(centred[1 : pairs - 1 : 2], centred[2:pairs:2]))
    return min(within, between) / power


def _quiet_swapped(pcm: NDArray[np.int16]) -> bool:
    """Quiet sound in the other byte order: the lower byte is only the sign of the upper one."""
    low, high = pcm.view(np.uint16) & 0xFF, pcm.view(np.uint16) >> 8
    signs = np.where(high >= 128, 255, 0)
    many = np.count_nonzero(np.bincount(high)) > 3
    return bool(many and _share(low == signs) >= MOST and 0.1 < _share(high >= 128) < 0.9)


def _pairs(pcm: NDArray[np.int16]) -> str:
    """Two interleaved channels: in every piece, neighbours differ more or less within pairs than between pairs.

    Medians are compared, since all jumps of a square wave may be between pairs.
    """
    table = pcm[: len(pcm) // 512 * 512].reshape(-1, 512).astype(np.float64)
    within = np.abs(table[:, 1::2] - table[:, 0::2])
    between = np.abs(table[:, 2::2] - table[:, 1:-1:2])
    moving = np.maximum(np.count_nonzero(within, axis=1), np.count_nonzero(between, axis=1)) >= between.shape[1] // 2
    some = moving & (table.std(axis=1) >= 20)
    pieces = int(np.count_nonzero(some))
    if pieces < 4:
        return ""
    table, within, between = table[some], within[some], between[some]
    second = _row_correlations(table, 2)
    alike = second > 0.6
    a, b, louder = np.median(within, axis=1), np.median(between, axis=1), _louder(table)
    marks = (
        (a < 0.6 * b) & alike,
        (b < 0.6 * a) & alike,
        (np.abs(_row_correlations(table, 1)) < 0.35) & (second > 0.75),
        (louder > 0.3) & alike,
        (louder < -0.3) & alike,
    )
    return "stereo" if max(np.count_nonzero(mark) for mark in marks) >= MOST * pieces else ""


def _louder(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much more the even samples of each row differ from their neighbours than the odd samples do, as a share of
    the row's power."""
    inner = table[:, 1:-1]
    out = (inner - (table[:, :-2] + table[:, 2:]) / 2) * inner
    share: NDArray[np.float64] = out[:, 1::2].sum(axis=1) - out[:, 0::2].sum(axis=1)
    power: NDArray[np.float64] = np.square(table).sum(axis=1)
    return share / np.maximum(1.0, power)


def _row_correlations(table: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """:func:`_correlation` of each row; no row may be constant."""
    centred = table - table.mean(axis=1, keepdims=True)
    shifted: NDArray[np.float64] = (centred[:, lag:] * centred[:, :-lag]).sum(axis=1)
    power: NDArray[np.float64] = np.square(centred).sum(axis=1)
    return shifted / power


def _correlation(values: NDArray[np.float64], lag: int) -> float:
    """The autocorrelation at ``lag``, from -1 to 1; 0 for constant values."""
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
