"""Stores as a killed process leaves them, and what can happen to their files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streamer.store.journal import Journal, Record, Saved
from streamer.store.salvage import Loss
from streamer.store.sessions import SqliteStore

__all__ = ["DAMAGES", "SENSORS", "STREAMS", "Contents", "contents", "journal", "killed", "lost_of", "sessions"]

STREAMS = {f"stream-{i:02}": random.Random(i).randbytes(200 + 1700 * (i % 5)) for i in range(20)}
SENSORS = {f"sensor/{i:02}": random.Random(100 + i).randbytes(300 + 2900 * (i % 3)) for i in range(20)}
#: What is in a store, by name: bytes that must come back as they are, or not at all.
Contents = dict[str, bytes]


def sessions(path: Path) -> SqliteStore:
    """Twenty streams, one by one, of which five are put again and one is deleted."""
    store = SqliteStore(path)
    for id, data in STREAMS.items():
        store.put([(id, data)])
    store.put([(id, STREAMS[id]) for id in list(STREAMS)[:5]])
    store.put([("gone", b"x" * 5000)])
    store.delete(["gone"])
    return store


def journal(path: Path) -> Journal:
    """Twenty sensors with their states, and ten records of a reading of each."""
    found = Journal(path)
    found.append([(i + 1, name) for i, name in enumerate(SENSORS)], [])
    found.append([(99, "gone")], [])
    found.append([(99, None)], [])
    found.save([Saved(i + 1, name, 1, "model", data) for i, (name, data) in enumerate(SENSORS.items())], 0)
    for seq in range(2, 12):
        ids = np.arange(1, 21)
        record = Record(seq, ids, ids * 1.5 + seq, ids * 100.0 + seq, np.zeros(20, np.bool_))
        found.append([], [record])
    return found


def killed(make: Callable[[Path], Any], folder: Path, name: str = "store.sqlite") -> Path:
    """The files as they are when the process is killed: never closed. The path in ``folder``."""
    work = folder / "work"
    work.mkdir(parents=True)
    store = make(work / name)
    (folder / "killed").mkdir()
    for file in work.iterdir():
        shutil.copy(file, folder / "killed" / file.name)
    store.close()
    shutil.rmtree(work)
    return folder / "killed" / name


def contents(path: Path) -> tuple[Contents, Loss | None]:
    """What a start finds: opens, reads everything, closes."""
    if path.name.startswith("sensors"):
        found = Journal(path)
        try:
            mine: Contents = {saved.name: saved.data for saved in found.streams()}
            for record in found.records():
                mine[f"record {record.seq}"] = record.ids.tobytes() + record.times.tobytes() + record.values.tobytes()
            assert found.damaged == 0
            return mine, found.loss
        finally:
            found.close()
    store = SqliteStore(path)
    try:
        return dict(store.live()), store.loss
    finally:
        store.close()


def lost_of(before: Contents, after: Contents, *, back: bool = False) -> set[str]:
    """Which are gone, or start again. Raises where one is wrong: other bytes than were put, or a name of nobody.
    ``back``: what was deleted last may be there again, the log of that is lost."""
    for name, data in after.items():
        if back and name == "gone":
            continue
        assert name in before, f"{name!r} was never there"
        assert data in (before[name], b""), f"{name} came back as something else"
    return {name for name, data in before.items() if data and after.get(name, b"") == b""}


def _zero(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(7).randbytes(max(5000, path.stat().st_size)))


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _byte_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:100] = bytes(100)
    path.write_bytes(data)


#: What is done to one file: to the database, or to the log beside it.
DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _zero,
    "garbage": _garbage,
    "half": _half,
    "a byte off": _byte_off,
    "no head": _head,
    "gone": Path.unlink,
}


def pages(size: int) -> Iterator[tuple[int, int]]:
    """First byte of each page of a file, and the first behind it."""
    return ((at, min(at + 4096, size)) for at in range(0, size, 4096))
