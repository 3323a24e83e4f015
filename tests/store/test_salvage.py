"""A damaged store: the daemon starts, what was not hit is there, and what was lost is said by name and count."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.store.pages import log_of, promised_frames
from streamer.store.sessions import SqliteStore
from tests.store.damage import DAMAGES, contents, journal, killed, lost_of, pages, sessions

KINDS = {"sessions.sqlite": sessions, "sensors.sqlite": journal}


@pytest.fixture(params=sorted(KINDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Killed: its last writes are in the log."""
    return killed(KINDS[request.param], tmp_path, request.param)


def closed(path: Path) -> Path:
    """All of it in one file."""
    contents(path)
    assert not path.with_name(path.name + "-wal").exists()
    return path


def copied(path: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path.parent, folder)
    return folder / path.name


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def test_a_killed_store_is_whole(store: Path) -> None:
    found = log_of(wal(store))
    assert found is not None
    assert found.readable == len(found.pages) == promised_frames(wal(store)) > 20
    after, loss = contents(store)
    assert len(after) in (20, 30)
    assert loss is None


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_whatever_happens_to_the_file_the_start_goes_on_and_says_what_is_gone(
    store: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, _ = contents(copied(store, tmp_path / "whole"))
    closed(store)
    DAMAGES[damage](store)
    hurt = store.read_bytes() if store.exists() else None
    after, loss = contents(store)
    lost = lost_of(before, after)
    if damage == "gone":  # nothing is left that could tell
        assert after == {}
        return
    if damage == "a byte off" and loss is None:  # it was of a page that nothing is on
        assert not lost
        return
    assert loss is not None
    assert loss.kept_as.read_bytes() == hurt
    assert "is rebuilt" in caplog.text
    bound = {"empty": len(before), "garbage": len(before), "half": len(before), "a byte off": 1, "no head": 0}[damage]
    assert len(lost) <= bound
    if damage == "a byte off":
        assert sum(loss.lost.values()) == len(lost)
    assert contents(store) == (after, None), "the next start finds it whole"


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_whatever_happens_to_the_log_the_start_goes_on_and_says_so(
    store: Path, tmp_path: Path, damage: str, index: bool
) -> None:
    """``index``: it is there, as after a kill; a machine that stopped may have none."""
    before, _ = contents(copied(store, tmp_path / "whole"))
    if not index:
        store.with_name(store.name + "-shm").unlink()
    DAMAGES[damage](wal(store))
    after, loss = contents(store)
    lost = lost_of(before, after, back=True)
    if index or damage not in ("empty", "half", "a byte off", "gone"):  # else it is as if the rest was never written
        assert loss is not None
        if damage not in ("empty", "gone"):
            assert loss.kept_as.with_name(loss.kept_as.name + "-wal").exists()
        assert loss.why
    if damage == "no head":
        assert len(lost) <= 1
    assert contents(store)[0] == after


def test_one_bad_page_costs_what_was_on_it(store: Path, tmp_path: Path) -> None:
    """Every page in turn, all others as they were."""
    before, _ = contents(copied(store, tmp_path / "whole"))
    data = closed(store).read_bytes()
    told = 0
    for first, last in pages(len(data)):
        path = copied(store, tmp_path / "hurt")
        path.write_bytes(data[:first] + b"\xa5" * (last - first) + data[last:])
        after, loss = contents(path)
        lost = lost_of(before, after)
        assert loss is not None
        assert len(lost) <= 20 if store.name.startswith("sensors") else len(lost) <= 12
        if lost:
            told += 1
            assert sum(loss.lost.values()) >= len(lost) or loss.pages == 1, (first, loss)
            assert {name for name in lost if not name.startswith("record")} <= set(loss.names)
    assert told


def test_one_flipped_bit_is_told_of_or_does_no_harm(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    before, _ = contents(copied(store, tmp_path / "whole"))
    rng = random.Random(3)
    for name in (wal(store).name, store.name):
        data = (store.parent / name).read_bytes()
        for _ in range(40):
            path = copied(store, tmp_path / "hurt")
            bit = rng.randrange(8 * len(data))
            hurt = bytearray(data)
            hurt[bit // 8] ^= 1 << bit % 8
            (path.parent / name).write_bytes(hurt)
            after, loss = contents(path)
            lost = lost_of(before, after, back=name.endswith("-wal"))
            assert loss is not None or not lost, (name, bit)


def test_a_write_that_was_torn_at_any_byte_costs_what_was_not_acknowledged(tmp_path: Path) -> None:
    """The machine stops in the middle of the last record: all before it is there, and nothing is said to be damaged."""
    work = tmp_path / "work"
    work.mkdir()
    one = SqliteStore(work / "sessions.sqlite")
    one.put([("a", b"1" * 3000)])
    size = wal(one.path).stat().st_size
    one.put([("b", b"2" * 3000)])
    log, base = wal(one.path).read_bytes(), one.path.read_bytes()
    one.close()
    torn = tmp_path / "torn"
    torn.mkdir()
    path = torn / "sessions.sqlite"
    for length in [*range(size, len(log), 61), len(log) - 1]:
        for file in torn.iterdir():
            file.unlink()
        path.write_bytes(base)
        wal(path).write_bytes(log[:length])
        after, loss = contents(path)
        assert after.get("a") == b"1" * 3000
        assert set(after) <= {"a", "b"}
        assert loss is None or "b" not in after or after["b"] == b"2" * 3000


ODD = [
    "UPDATE sessions SET data = 'text' WHERE id = 'stream-03'",
    "UPDATE sessions SET saved = 'never' WHERE id = 'stream-03'",
    "UPDATE sessions SET live = 'yes' WHERE id = 'stream-03'",
    "UPDATE sessions SET id = x'00ff' WHERE id = 'stream-03'",
    "UPDATE sessions SET id = 3 WHERE id = 'stream-03'",
    "UPDATE sessions SET id = CAST(x'ff00' AS TEXT) WHERE id = 'stream-03'",
    "UPDATE clock SET seconds = 'text'",
    "UPDATE clock SET seconds = 9e999",
    "DELETE FROM clock",
    "INSERT INTO clock VALUES (5)",
    "CREATE TABLE more (a)",
    "CREATE TRIGGER stop BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = -5",
]
ODD_JOURNAL = [
    "UPDATE streams SET seq = 'text' WHERE id = 3",
    "UPDATE streams SET seq = 9223372036854775807 WHERE id = 3",
    "UPDATE streams SET name = x'00' WHERE id = 3",
    "UPDATE streams SET name = '' WHERE id = 3",
    "UPDATE streams SET data = 'text' WHERE id = 3",
    "UPDATE streams SET id = -3 WHERE id = 3",
    "UPDATE journal SET data = 'text' WHERE seq = 3",
    "UPDATE journal SET data = x'' WHERE seq = 3",
    "UPDATE journal SET data = x'0000000001' WHERE seq = 3",
    "UPDATE journal SET seq = -3 WHERE seq = 3",
    "UPDATE journal SET seq = 9223372036854775807 WHERE seq = 3",
    "INSERT INTO ages VALUES (3, 'old')",
    "INSERT INTO ages VALUES (3, -1e308)",
    "UPDATE sqlite_sequence SET seq = 'text'",
    "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "DELETE FROM sqlite_sequence",
    "INSERT INTO variables VALUES (0, x'00', 3)",
]


def spoiled(make: Callable[[Path], object], folder: Path, name: str, statement: str) -> tuple[Path, dict[str, bytes]]:
    path = killed(make, folder, name)
    before, _ = contents(path)
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    return path, before


@pytest.mark.parametrize("statement", ODD)
def test_no_odd_row_of_a_session_stops_the_start(tmp_path: Path, statement: str) -> None:
    path, before = spoiled(sessions, tmp_path, "sessions.sqlite", statement)
    after, loss = contents(path)
    lost = lost_of(before, after)
    assert lost <= {"stream-03"}
    assert loss is not None or not lost
    one = SqliteStore(path)
    one.put([("new", b"1")])
    one.retire(["new"])
    assert one.purge(3600) == 0
    one.close()


@pytest.mark.parametrize("statement", ODD_JOURNAL)
def test_no_odd_row_of_the_journal_stops_the_start(tmp_path: Path, statement: str) -> None:
    path, before = spoiled(journal, tmp_path, "sensors.sqlite", statement)
    after, loss = contents(path)
    lost = lost_of(before, after)
    assert len(lost) <= 1, loss
    assert loss is not None or not lost
    again = journal_of(path)
    assert again.next_id > 99 or "sqlite_sequence" in statement
    assert again.next_seq >= 12
    again.append([(again.next_id, "new")], [])
    again.close()


def journal_of(path: Path):  # type: ignore[no-untyped-def]
    from streamer.store.journal import Journal

    return Journal(path)


def test_a_rebuild_that_was_interrupted_is_finished_or_begun_again(tmp_path: Path) -> None:
    path = closed(killed(sessions, tmp_path, "sessions.sqlite"))
    before, _ = contents(path)
    new = path.with_name(path.name + ".new")
    shutil.copy(path, new)
    path.rename(path.with_name(path.name + ".damaged"))  # and here it ended
    assert contents(path) == (before, None)
    new.write_bytes(b"half of a file")
    assert contents(path) == (before, None)
    assert not new.exists()


def test_a_store_of_the_version_before_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, saved REAL NOT NULL, live INTEGER NOT NULL, data BLOB NOT NULL)"
    )
    db.execute("CREATE TABLE clock (seconds REAL NOT NULL)")
    db.execute("INSERT INTO clock VALUES (7)")
    db.execute("INSERT INTO sessions VALUES ('a', 5, 1, x'01')")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    assert contents(path) == ({"a": b"\x01"}, None)
    assert contents(path) == ({"a": b"\x01"}, None)
