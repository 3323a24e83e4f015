"""Stores that were damaged while no daemon ran: undamaged rows are kept, no row is wrong, and every loss is reported.

Both stores, as after a kill, are damaged: truncated at every byte of the last records, a flipped bit anywhere, a bad
page, a file that is empty, garbage, cut in half or missing, the same for the write-ahead log, and invalid rows. Then a
daemon is started on some of them.
"""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.victim import Victim
from streamer.engine.catalogue import resolve
from streamer.store import StoreError
from streamer.store.journal import Journal, Record, Saved
from streamer.store.salvage import Loss
from streamer.store.sessions import SqliteStore

__all__ = ["run"]

STREAMS = {f"stream-{i:03}": random.Random(i).randbytes(200 + 1700 * (i % 5)) for i in range(60)}
SENSORS = {f"sensor/{i:03}": random.Random(100 + i).randbytes(300 + 2900 * (i % 3)) for i in range(60)}
PAGE = 4096
#: Kinds of damage to whole files.
WHOLE: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda data: b"",
    "garbage": lambda data: random.Random(7).randbytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "no head": lambda data: bytes(100) + data[100:],
    "gone": lambda data: None,
}
ODD = {
    "sessions.sqlite": (
        "UPDATE sessions SET data = 'text' WHERE id = 'stream-003'",
        "UPDATE sessions SET saved = 'never' WHERE id = 'stream-003'",
        "UPDATE sessions SET id = CAST(x'ff00' AS TEXT) WHERE id = 'stream-003'",
        "UPDATE clock SET seconds = 'text'",
        "DROP TABLE clock",
        "CREATE TRIGGER stop BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END",
        "PRAGMA user_version = 77",
    ),
    "sensors.sqlite": (
        "UPDATE streams SET seq = 'text' WHERE id = 3",
        "UPDATE streams SET id = -3 WHERE id = 3",
        "UPDATE journal SET data = 'text' WHERE seq = 3",
        "UPDATE journal SET seq = 9223372036854775807 WHERE seq = 3",
        "UPDATE sqlite_sequence SET seq = 'text'",
        "INSERT INTO ages VALUES (3, 'old')",
        "DROP TABLE ages",
    ),
}
Contents = dict[str, bytes]


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    logger = logging.getLogger("streamer.store")
    level, logger.level = logger.level, logging.CRITICAL
    try:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of files, each synced
        with tempfile.TemporaryDirectory(dir=memory) as folder, setup.model_path(str(model) if model else None) as path:
            for name, make in (("sessions.sqlite", _sessions), ("sensors.sqlite", _journal)):
                yield from Bench(Path(folder) / name, name, make, scale).rows()
            yield from _starts(Path(folder) / "starts", path, scale)
    finally:
        logger.level = level


class Bench:
    """One store as after a kill, and damaged copies of it."""

    def __init__(self, folder: Path, name: str, make: Callable[[Path], None], scale: Scale) -> None:
        self.folder, self.name, self.scale = folder, name, scale
        self.rng = random.Random(scale.seed)
        self.files = _killed(folder / "made", name, make)
        self.whole, _ = self._contents(self.files)
        path = self._copy(self.files)
        _open(path).close()
        self.closed = {name: path.read_bytes()}

    def rows(self) -> Iterator[AttackRow]:
        log = f"{self.name}-wal"
        share = self.scale.share
        last = len(self.files[log]) - 3 * (PAGE + 24)
        cuts = range(last, len(self.files[log]), max(1, round(1 / share)))
        yield self._row("cut in the last records of the log", ((log, _cut(self.files[log], at)) for at in cuts), 25)
        size = len(self.closed[self.name])
        cuts = range(size - 2 * PAGE, size, max(1, round(4 / share)))
        yield self._row(
            "cut in the last pages of the file", ((None, _cut(self.closed[self.name], at)) for at in cuts), 25
        )
        bits = max(10, round(400 * share))
        for name, files in ((log, self.files), (None, self.closed)):
            data = files[name or self.name]
            flipped = ((name, _flipped(data, self.rng.randrange(8 * len(data)))) for _ in range(bits))
            yield self._row(f"one flipped bit in {'the log' if name else 'the file'}", flipped, 25)
        pages = range(0, size, PAGE * max(1, round(1 / share)))
        data = self.closed[self.name]
        bad = ((None, data[:at] + b"\xa5" * PAGE + data[at + PAGE :]) for at in pages)
        yield self._row("one bad page", bad, 60)
        for title, damage in WHOLE.items():
            yield self._row(f"the file: {title}", [(None, damage(data))], len(self.whole), silent=title == "gone")
            yield self._row(f"the log: {title}", [(log, damage(self.files[log]))], len(self.whole))
        yield self._row("odd rows", [(statement, b"") for statement in ODD[self.name]], 1)

    def _row(
        self, what: str, damages: Iterable[tuple[str | None, bytes | None]], most: int, *, silent: bool = False
    ) -> AttackRow:
        """The result for all ``damages``: names of files (``None``: the database of a closed store; other names are
        statements) with their damaged content. They are made one at a time, to save memory. ``most``: rows that may be
        lost; ``silent``: without a report."""
        failed, count, worst, unreported = list[str](), 0, 0, 0
        for name, data in damages:
            count += 1
            files = dict(self.closed if name is None or name not in self.files else self.files)
            if name is None or name in files:
                files[name or self.name] = data  # type: ignore[assignment]
            try:
                after, loss = self._contents(files, None if name is None or name in files else name)
                lost = _lost(self.whole, after)
            except (StoreError, AssertionError, Exception) as error:
                failed.append(f"{type(error).__name__}: {error}")
                continue
            worst = max(worst, len(lost))
            unreported += bool(lost) and loss is None and not silent
        found = f"{count} times; {len(failed)} failed {failed[:1]}, {worst} rows lost at most, {unreported} unreported"
        held = not failed and not unreported and worst <= most
        return AttackRow(
            "disks", f"{self.name}: {what}", f"starts; at most {most} lost, none unreported, none wrong", found, held
        )

    def _copy(self, files: dict[str, bytes]) -> Path:
        folder = self.folder / "hurt"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in files.items():
            if data is not None:
                (folder / name).write_bytes(data)
        return folder / self.name

    def _contents(self, files: dict[str, bytes], statement: str | None = None) -> tuple[Contents, Loss | None]:
        path = self._copy(files)
        if statement is not None:
            with sqlite3.connect(path) as db:
                db.execute(statement)
            db.close()
        store = _open(path)
        try:
            return _contents(store), store.loss
        finally:
            store.close()


def _open(path: Path) -> SqliteStore | Journal:
    return SqliteStore(path) if path.name.startswith("sessions") else Journal(path)


def _contents(store: SqliteStore | Journal) -> Contents:
    if isinstance(store, SqliteStore):
        return dict(store.live())
    found: Contents = {saved.name: saved.data for saved in store.streams()}
    for record in store.records():
        found[f"record {record.seq}"] = record.ids.tobytes() + record.times.tobytes() + record.values.tobytes()
    return found


def _lost(before: Contents, after: Contents) -> set[str]:
    """The names of lost or restarted streams or sensors. Raises ``AssertionError`` for one with other content."""
    for name, data in after.items():
        assert data in (before.get(name), b""), f"{name} has other content"
    return {name for name, data in before.items() if after.get(name, b"") != data}


def _sessions(path: Path) -> None:
    store = SqliteStore(path)
    for id, data in STREAMS.items():
        store.put([(id, data)])
    shutil.copytree(path.parent, path.parent.parent / "killed")
    store.close()


def _journal(path: Path) -> None:
    store = Journal(path)
    store.append([(i + 1, name) for i, name in enumerate(SENSORS)], [])
    store.save([Saved(i + 1, name, 1, "model", data) for i, (name, data) in enumerate(SENSORS.items())], 0)
    for seq in range(2, 32):
        ids = np.arange(1, 61)
        store.append([], [Record(seq, ids, ids * 1.5 + seq, ids * 100.0 + seq, np.zeros(60, np.bool_))])
    shutil.copytree(path.parent, path.parent.parent / "killed")
    store.close()


def _killed(folder: Path, name: str, make: Callable[[Path], None]) -> dict[str, bytes]:
    (folder / "work").mkdir(parents=True)
    make(folder / "work" / name)
    return {file.name: file.read_bytes() for file in (folder / "killed").iterdir()}


def _cut(data: bytes, at: int) -> bytes:
    return data[:at]


def _flipped(data: bytes, bit: int) -> bytes:
    hurt = bytearray(data)
    hurt[bit // 8] ^= 1 << bit % 8
    return bytes(hurt)


def _starts(folder: Path, model: Path, scale: Scale) -> Iterator[AttackRow]:
    """A daemon on damaged stores, with invalid files beside them."""
    for title, damage in list(WHOLE.items())[: max(1, round(len(WHOLE) * scale.share))]:
        state = folder / title.replace(" ", "-") / "state"
        for name, make in (("sessions.sqlite", _sessions), ("sensors.sqlite", _journal)):
            state.mkdir(parents=True, exist_ok=True)
            for file, data in _killed(folder / title / name, name, make).items():
                if (hurt := damage(data)) is not None:
                    (state / file).write_bytes(hurt)
        (state / "tuning.json").write_text("[" * 50_000)
        (state / "kserve.json").write_text('{"a": Infinity}')
        victim = Victim(folder / title, [model, resolve("forecast-online")], state=state)
        try:
            ready = victim.wait_ready()
            reported = victim.output().count("rebuilt")
        finally:
            code = victim.end()
        held = ready and code == 0 and (reported == 2 or title == "gone")
        found = f"ready: {ready}, exit {code}, {reported} stores reported as damaged"
        yield AttackRow("disks", f"a daemon on stores that are: {title}", "ready, reports it, exit 0", found, held)
