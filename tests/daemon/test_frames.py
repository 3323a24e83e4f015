"""Frames cut out of a stream of bytes, whatever its pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.utils import apply_mask

from streamer.serve.frames import Cutter

LIMIT = 70_000
SIZES = st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536, LIMIT])
DATA = st.builds(Frame, st.sampled_from([Opcode.BINARY, Opcode.TEXT, Opcode.CONT]), SIZES.map(bytes), st.booleans())
FRAMES = st.one_of(DATA, st.just(Frame(Opcode.PING, b"?")))


@given(frames=st.lists(FRAMES, min_size=1, max_size=6), cuts=st.lists(st.integers(0, 400_000), max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_frame_comes_out_whole(frames: list[Frame], cuts: list[int]) -> None:
    sent = [whole(frame) for frame in frames]
    data, cutter = b"".join(sent), Cutter(LIMIT)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [part for a, b in pairwise(edges) for part in cutter.cut(data[a:b])]
    assert [bytes(frame) for frame, _ in found] == sent
    for frame, (cut, payload) in zip(frames, found, strict=True):
        assert bool(payload) == (frame.opcode is Opcode.BINARY and frame.fin)
        if payload:
            assert apply_mask(cut[payload:], cut[payload - 4 : payload]) == frame.data


def test_one_byte_at_a_time() -> None:
    cutter, sent = Cutter(LIMIT), whole(Frame(Opcode.BINARY, b"abcdef" * 50))
    assert [part for byte in sent + sent for part in cutter.cut(bytes([byte]))] == [(sent, 8), (sent, 8)]


def test_what_begins_with_a_frame_that_is_too_long_is_not_kept() -> None:
    cutter, sent = Cutter(10), whole(Frame(Opcode.BINARY, bytes(11)))
    assert list(cutter.cut(whole(Frame(Opcode.BINARY, bytes(10))) + sent[:9])) == [
        (whole(Frame(Opcode.BINARY, bytes(10))), 6),
        (sent[:9], 0),
    ]
    assert list(cutter.cut(b"more")) == [(b"more", 0)]


def test_an_unmasked_frame_is_left_to_the_codec() -> None:
    sent = Frame(Opcode.BINARY, b"ab").serialize(mask=False)
    assert list(Cutter(LIMIT).cut(sent)) == [(sent, 0)]


def whole(frame: Frame) -> bytes:
    """As a client sends it, with the mask that says most about where the payload begins."""
    plain = frame.serialize(mask=False)
    head, mask = len(plain) - len(frame.data), b"\1\2\3\4"
    return plain[:1] + bytes([plain[1] | 0x80]) + plain[2:head] + mask + apply_mask(bytes(frame.data), mask)
