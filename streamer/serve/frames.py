"""Cuts a stream of bytes into WebSocket frames (RFC 6455, section 5.2), to take a short way for whole binary frames.

Nearly all frames of a client are whole binary ones, and these need only unmasking. The codec handles all others; it is
thorough and takes five times as long. It gets whole frames too, so that it is never in the middle of a frame when a
binary frame comes.
"""

from __future__ import annotations

from collections.abc import Iterator

from websockets.frames import Frame, Opcode

__all__ = ["Cutter", "JoinedFrames", "clip_reason"]

BINARY_AND_FINAL = 0x82
MASKED = 0x80
#: Opcodes of the frames of messages.
MESSAGE = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)


class Cutter:
    """``limit``: most payload bytes of a frame. From a longer frame on, bytes are passed on uncut, as they come."""

    __slots__ = ("_limit", "_needed", "_rest", "_uncut")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # bytes that this frame has at least
        self._uncut = False

    def cut(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Whole frames, each with the offset of the masked payload of a final binary frame; 0 for all others."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end = 0, len(data)
        while at < end and not self._uncut:
            payload, stop = self._measure(data, at, end)
            if stop > end:
                self._rest += data[at:]
                self._needed = stop - at
                return
            fast = not self._uncut and data[at] == BINARY_AND_FINAL and data[at + 1] & MASKED
            yield data[at:stop], payload - at if fast else 0
            at = stop
        if at < end:
            yield data[at:], 0

    def _measure(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Begin and end of the payload of the frame at ``at``. Both are lower bounds beyond ``end`` if the header is
        not complete."""
        payload = at + 2
        if payload > end:
            return payload, payload
        length = data[at + 1] & 127
        if length > 125:
            payload += 2 if length == 126 else 8
            if payload > end:
                return payload, payload
            length = int.from_bytes(data[at + 2 : payload])
        if data[at + 1] & MASKED:
            payload += 4
        if length > self._limit:
            self._uncut = True
            return payload, end
        return payload, payload + length


class JoinedFrames:
    """Joins the frames of a message. ``text``: whether the last message is one of text."""

    __slots__ = ("_parts", "text")

    def __init__(self) -> None:
        self._parts = bytearray()  # joined at once: a list of empty ones would grow without end
        self.text = False

    @property
    def begun(self) -> bool:
        return bool(self._parts)

    def add(self, frame: Frame) -> bytes | None:
        """The message, if ``frame`` is its last one. Frames that are not of a message give ``None``."""
        if frame.opcode in (Opcode.BINARY, Opcode.TEXT):
            self.text = frame.opcode is Opcode.TEXT
            self._parts = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT:
            self._parts += frame.data
        if frame.opcode not in MESSAGE or not frame.fin:
            return None
        data, self._parts = bytes(self._parts), bytearray()
        return data


def clip_reason(reason: str) -> str:
    """Cut a close reason to 123 bytes of UTF-8, its limit."""
    return reason.encode()[:120].decode(errors="ignore")
