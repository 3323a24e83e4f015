"""What all ways in that carry many readings at a time have in common: the result, the refusal, the names of streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from streamer.sensors.columns import Batch

__all__ = ["NAME_CHARACTERS", "BodyError", "Collected", "Names", "Parsed", "named"]

#: Of a stream's name. It is a key in memory, on the disk and on the metrics page.
NAME_CHARACTERS = 1000
FAULTS = 10  # told in words; more are counted
#: Names that are remembered by the bytes they are made of: bytes of these and of the names, roughly.
KEPT_BYTES = 2**25
EACH, PART = 150, 50  # what an entry and each object in it take besides

K = TypeVar("K", bound=tuple[bytes, ...])


class BodyError(ValueError):
    """A body of which nothing can be taken. ``status``: HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Parsed:
    """``skipped``: what was no reading or could not be one, by reason. ``faults``: the first that are the sender's
    mistake, in words; a reason that is nobody's mistake (``string``, ``stale``) has none."""

    batch: Batch
    skipped: dict[str, int]
    faults: list[str]


@dataclass(slots=True)
class Collected:
    """A :class:`Parsed` in the making."""

    names: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, reason: str, message: str, count: int = 1) -> None:
        self.skipped[reason] += count
        if len(self.faults) < FAULTS:
            self.faults.append(message)

    def done(self) -> Parsed:
        return Parsed(Batch.made(self.names, self.times, self.values), dict(self.skipped), self.faults)


class Names(dict[K, str]):
    """Names by what they are made of; emptied when it is full, so that nobody fills the memory with names."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        super().__init__()
        self._limit, self._size = limit, 0

    def keep(self, key: K, name: str) -> str:
        size = EACH + len(name) + sum(map(len, key)) + PART * len(key)
        if self._size + size > self._limit:
            self.clear()
            self._size = 0
        if size <= self._limit:
            self[key] = name
            self._size += size
        return name


def named(metric: str, labels: Iterable[tuple[str, str]]) -> str:
    """``metric{label="value",...}`` with the labels in order. Raises ``ValueError`` if that is no name of a stream."""
    pairs = sorted((label, value) for label, value in labels if value)
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
    name = f"{metric}{{{inside}}}" if inside else metric
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise ValueError(f"{name[:60]!r} is no name of a stream (1 to {NAME_CHARACTERS} printable characters)")
    return name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
