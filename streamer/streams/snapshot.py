"""One sleeping stream as bytes (data only, no pickled code), from which it continues like an uninterrupted one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.snapshot import pack, unpack

__all__ = ["KeptEvent", "SavedHearing", "Snapshot", "SnapshotError"]

MAGIC = b"STS1"


class SnapshotError(ValueError):
    """The bytes are not a snapshot, are damaged, or belong to another model file."""


class KeptEvent(dict[str, Any]):
    """An event that is kept for a client that comes back. It is saved at every checkpoint and never changes, so its
    text is made once: a stream keeps hundreds, and encoding them every two seconds costs more than a small model."""

    __slots__ = ("_text",)
    _text: bytes

    @property
    def text(self) -> bytes:
        """The event as JSON, with names in place of its tensors."""
        try:
            return self._text
        except AttributeError:
            said: Mapping[str, Any] = self if "outputs" not in self else {**self, "outputs": list(self["outputs"])}
            self._text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
            return self._text


class SavedHearing(NamedTuple):
    """For the second pass: ``pcm`` [n] that ends at ``consumed``, may be empty, and the sample before which all sound
    belongs to finals that were sent."""

    pcm: NDArray[Any]
    own: int


@dataclass(frozen=True)
class Snapshot:
    """Positions in rows: ``received`` at the client's rate, ``consumed`` and ``origin`` at the model's.

    ``sample_rate``: of a client that sends sound, else ``None``. ``origin``: where the task's memory begins.
    ``pending``: rows that were received and not run; rows of several numbers are kept as bytes (:meth:`rows`).
    ``dropped``: rows that the next ``gap`` event reports. ``events``: numbered ones that the client may not have seen.
    ``steps_left`` of an ended stream, -1 before its end. ``states`` is empty once the stream is over. ``version``: the
    session's, which is not written.
    """

    id: str
    model: str
    digest: str
    sample_rate: int | None
    overflow: str
    options: dict[str, Any]
    received: int
    consumed: int
    origin: int
    seq: int
    steps_left: int
    dropped: int
    finished: bool
    markers: list[tuple[str, int, int]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    memory: bytes = b""
    resampler: bytes = b""
    pending: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.int16))
    states: dict[str, NDArray[Any]] = field(default_factory=dict)
    heard: SavedHearing | None = None
    version: int = 0

    def rows(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """``pending`` as rows of ``dtype``. Raises :class:`SnapshotError` where it is not a whole number of them."""
        try:
            return self.pending.view(dtype)
        except ValueError as error:
            raise SnapshotError(f"the rows that wait are not of this model: {error}") from error

    def to_bytes(self) -> bytes:
        """Little-endian, checksummed."""
        other = ("memory", "resampler", "pending", "states", "heard", "version")
        facts = {k: v for k, v in vars(self).items() if k not in other}
        names = sorted(self.states)
        tensors: list[NDArray[Any]] = []
        events = [event if isinstance(event, KeptEvent) else KeptEvent(event) for event in self.events]
        for event in events:
            tensors += event.get("outputs", {}).values()
        facts["events"] = len(events)
        texts = b"[" + b",".join(event.text for event in events) + b"]"
        blobs = [np.frombuffer(blob, np.uint8) for blob in (self.memory, self.resampler, texts)]
        pending = self.pending if self.pending.dtype.names is None else self.pending.view(np.uint8)
        arrays = [*blobs, pending, *(self.states[name] for name in names), *tensors]
        if self.heard is not None:
            facts["own"] = self.heard.own
            arrays.append(self.heard.pcm)
        body = pack({**facts, "states": names}, arrays)
        return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Raises :class:`SnapshotError`."""
        if data[:4] != MAGIC:
            raise SnapshotError("these bytes are no snapshot of a stream")
        if zlib.crc32(data[8:]) != int.from_bytes(data[4:8], "little"):
            raise SnapshotError("the snapshot is damaged (checksum)")
        try:
            facts, (memory, resampler, *rest) = unpack(data[8:])
            if isinstance(facts["events"], list):  # as an earlier version wrote them
                pending, *rest = rest
                events = facts["events"]
            else:
                texts, pending, *rest = rest
                events = json.loads(texts.tobytes())
            names = facts.pop("states")
            rows, tensors = rest[: len(names)], rest[len(names) :]
            heard = SavedHearing(tensors.pop(), int(facts.pop("own"))) if "own" in facts else None
            facts["markers"] = [(str(i), int(p), int(due)) for i, p, due in facts["markers"]]
            facts["events"] = [_with_tensors(event, tensors) for event in events]
            states = dict(zip(names, rows, strict=True))
            facts |= {"memory": memory.tobytes(), "resampler": resampler.tobytes(), "states": states, "heard": heard}
            return cls(**facts, pending=pending)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise SnapshotError(f"the snapshot does not fit this build: {error}") from error


def _with_tensors(event: dict[str, Any], tensors: list[NDArray[Any]]) -> dict[str, Any]:
    """The event with its tensors: the first ones of ``tensors``, which are removed from there."""
    if "outputs" in event:
        names = [name if isinstance(name, str) else name[0] for name in event["outputs"]]  # earlier: with numbers
        event = {**event, "outputs": dict(zip(names, tensors, strict=False))}
        if len(event["outputs"]) != len(names):
            raise ValueError("tensors of its events are missing")
        del tensors[: len(names)]
    return event
