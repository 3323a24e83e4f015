"""One sleeping stream: all that makes its continuation that of the uninterrupted run, as bytes without code in them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.snapshot import pack, unpack

__all__ = ["Saved", "Snapshot", "SnapshotError"]

MAGIC = b"STS1"


class SnapshotError(ValueError):
    """The bytes are no snapshot, are damaged, or belong to another model file."""


class Saved(NamedTuple):
    """For the second hearing of finals: ``pcm`` [n] that ends at ``consumed``, maybe none, and the sample before which
    all belongs to finals that were given out."""

    pcm: NDArray[Any]
    own: int


@dataclass(frozen=True)
class Snapshot:
    """Positions in rows: ``received`` at the client's rate, ``consumed`` and ``origin`` at the model's.

    ``sample_rate``: of a client that sends sound, else ``None``. ``origin``: where the task's memory begins.
    ``pending`` was received and not run; rows of several numbers are kept as bytes (:meth:`rows`). ``dropped`` waits to
    be told. ``events``: numbered ones that the client may not have seen. ``steps_left`` of an ended stream, -1 of one
    that goes on. ``states`` is empty once the stream is all done. ``version``: the session's, which is not written.
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
    heard: Saved | None = None
    version: int = 0

    def rows(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """``pending`` as rows of ``dtype``. Raises :class:`SnapshotError` where it is no whole number of them."""
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
        facts["events"] = [_without_tensors(event, tensors) for event in self.events]
        blobs = [np.frombuffer(blob, np.uint8) for blob in (self.memory, self.resampler)]
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
            facts, (memory, resampler, pending, *rest) = unpack(data[8:])
            names = facts.pop("states")
            rows, tensors = rest[: len(names)], rest[len(names) :]
            heard = Saved(tensors.pop(), int(facts.pop("own"))) if "own" in facts else None
            facts["markers"] = [(str(i), int(p), int(due)) for i, p, due in facts["markers"]]
            facts["events"] = [_with_tensors(event, tensors) for event in facts["events"]]
            states = dict(zip(names, rows, strict=True))
            facts |= {"memory": memory.tobytes(), "resampler": resampler.tobytes(), "states": states, "heard": heard}
            return cls(**facts, pending=pending)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise SnapshotError(f"the snapshot does not fit this build: {error}") from error


def _without_tensors(event: dict[str, Any], tensors: list[NDArray[Any]]) -> dict[str, Any]:
    """The event with numbers in the place of its tensors, which go to ``tensors``."""
    if "outputs" not in event:
        return event
    first = len(tensors)
    tensors += event["outputs"].values()
    return {**event, "outputs": [[name, first + i] for i, name in enumerate(event["outputs"])]}  # in their order


def _with_tensors(event: dict[str, Any], tensors: list[NDArray[Any]]) -> dict[str, Any]:
    if "outputs" not in event:
        return event
    return {**event, "outputs": {name: tensors[number] for name, number in event["outputs"]}}
