"""Events that are kept for a client that comes back, as they are saved."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.streams.delivery import Delivery, Markers
from streamer.streams.snapshot import KeptEvent, Snapshot, SnapshotError
from streamer.tasks.snapshot import pack, unpack

EMPTY = Snapshot(
    id="x", model="toy", digest="d", sample_rate=None, overflow="wait", options={}, received=5, consumed=4, origin=0,
    seq=9, steps_left=-1, dropped=0, finished=False, states={"h": np.array([1.5], np.float32)},
)  # fmt: skip


def outputs(seq: int, **tensors: NDArray[Any]) -> dict[str, Any]:
    return {"type": "outputs", "seq": seq, "outputs": tensors}


EVENTS = [
    {"type": "final", "seq": 1, "text": 'ä "b"', "words": [{"word": "ä", "start": 0.1}]},
    outputs(2, b=np.array([[1, 2]], np.int16), a=np.array([np.nan, 1.0], np.float32)),  # not by the alphabet
    {"type": "marker", "seq": 3, "id": "m"},
    outputs(4, a=np.zeros(0, np.float32), b=np.array([[3, 4]], np.int16)),
]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for event, other in zip(found, wanted, strict=True):
        assert {**event, "outputs": None} == {**other, "outputs": None}
        assert list(event.get("outputs", {})) == list(other.get("outputs", {}))
        for name, tensor in event.get("outputs", {}).items():
            np.testing.assert_array_equal(tensor, other["outputs"][name], strict=True)


def test_events_survive_their_bytes_whoever_kept_them() -> None:
    plain = replace(EMPTY, events=EVENTS)
    kept = replace(EMPTY, events=[KeptEvent(event) for event in EVENTS])
    same(Snapshot.from_bytes(plain.to_bytes()).events, EVENTS)
    assert kept.to_bytes() == plain.to_bytes() == kept.to_bytes()
    assert Snapshot.from_bytes(plain.to_bytes()).states["h"] == 1.5


def test_the_text_of_an_event_is_made_once() -> None:
    delivery = Delivery("x", 2, 1000, lambda: None)
    for event in EVENTS[:3]:
        delivery.emit([dict(event)])
    same(list(delivery.kept), EVENTS[1:3])
    texts = [event.text for event in delivery.kept]
    assert [id(event.text) for event in delivery.kept] == [id(text) for text in texts]
    again = Delivery("x", 2, 1000, lambda: None)
    again.restore(3, Snapshot.from_bytes(replace(EMPTY, events=list(delivery.kept)).to_bytes()).events)
    assert [event.text for event in again.kept] == texts


def test_snapshots_of_the_version_before_are_read() -> None:
    facts, arrays = unpack(replace(EMPTY, events=EVENTS).to_bytes()[8:])
    memory, resampler, _, *rest = arrays
    numbers = iter(range(4))
    facts["events"] = [
        {**event, "outputs": [[name, next(numbers)] for name in event["outputs"]]} if "outputs" in event else event
        for event in EVENTS
    ]
    body = pack(facts, [memory, resampler, *rest])
    same(Snapshot.from_bytes(b"STS1" + zlib.crc32(body).to_bytes(4, "little") + body).events, EVENTS)


def test_an_event_whose_tensors_are_missing_is_refused() -> None:
    facts, arrays = unpack(replace(EMPTY, events=EVENTS).to_bytes()[8:])
    body = pack(facts, arrays[:-1])
    with pytest.raises(SnapshotError, match="does not fit"):
        Snapshot.from_bytes(b"STS1" + zlib.crc32(body).to_bytes(4, "little") + body)


def test_a_marker_is_known_again_without_a_look_at_every_kept_event() -> None:
    looked: list[int] = []

    class Looked(KeptEvent):
        def __getitem__(self, name: str) -> Any:
            looked.append(1)
            return super().__getitem__(name)

    delivery = Delivery("x", 5000, 1000, lambda: None)
    delivery.kept.extend(Looked({"type": "final", "seq": seq}) for seq in range(4000))
    marker = {"type": "marker", "position": 100}
    for event in (
        {**marker, "id": "a"},
        {**marker, "id": "b", "position": 200},
        {"type": "final"},
        {**marker, "id": "c", "position": 200},
        {"type": "partial"},
    ):
        delivery.kept.append(Looked(event))
    resumed = Markers(10)
    assert not resumed.add("b", 200, 200, delivery)
    assert not resumed.add("c", 200, 200, delivery)
    assert resumed.add("a", 200, 200, delivery)  # the same id elsewhere is another marker
    assert len(looked) < 30
