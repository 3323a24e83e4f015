"""The session store on a real disk."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from streamer.store import StoreError
from streamer.store.sessions import SqliteStore


def test_what_was_put_is_there_after_a_new_start(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sessions.sqlite"
    store = SqliteStore(path)
    store.put([("a", b"1"), ("b", b"2"), ("c", b"3")])
    store.put([("a", b"\x00new")])
    store.retire(["b"])
    store.delete(["c"])
    store.close()
    again = SqliteStore(path)
    assert again.set_aside is None
    assert dict(again.live()) == {"a": b"\x00new"}
    assert again.get("b") == b"2"
    assert again.get("c") is None
    again.put([("b", b"awake")])
    assert dict(again.live()) == {"a": b"\x00new", "b": b"awake"}
    again.close()


def test_a_crash_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    store = SqliteStore(path)
    store.put([("a", b"1")])
    copy = tmp_path / "copy"  # the files as a kill would leave them: never closed
    copy.mkdir()
    for file in tmp_path.glob("sessions.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    store.close()
    survivor = SqliteStore(copy / "sessions.sqlite")
    assert survivor.get("a") == b"1"
    survivor.close()


def test_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.sqlite")
    with pytest.raises(StoreError, match="failed"):
        store.put([("a", b"1"), ("b", None)])  # type: ignore[list-item]
    assert store.get("a") is None
    store.put([("a", b"2")])
    assert store.get("a") == b"2"
    store.close()


def test_only_those_that_were_retired_grow_old(tmp_path: Path) -> None:
    now = 1000.0
    store = SqliteStore(tmp_path / "sessions.sqlite", lambda: now)
    store.put([("live", b"1"), ("asleep", b"2")])
    now += 50
    store.retire(["asleep"])
    now += 100
    assert store.age("asleep") == 100
    assert store.purge(101) == 0
    assert store.purge(99) == 1
    assert store.get("asleep") is None
    assert store.purge(0) == 0
    assert store.get("live") == b"1"
    assert store.age("nobody") is None
    store.close()


def test_no_time_passes_while_nothing_runs_and_no_clock_that_is_set_makes_it_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was off for a month, and its clock is wrong by another."""
    path = tmp_path / "sessions.sqlite"
    now = 1000.0
    store = SqliteStore(path, lambda: now)
    store.put([("a", b"1")])
    store.retire(["a"])
    now += 60
    store.purge(3600)
    store.close()
    now = 5.0  # another boot: its monotonic clock starts again
    wall = time.time()
    monkeypatch.setattr("time.time", lambda: wall + 60 * 86400)
    store = SqliteStore(path, lambda: now)
    assert store.purge(100) == 0
    now += 39
    assert store.age("a") == pytest.approx(99, abs=60)
    assert store.purge(100) == 0
    now += 62
    assert store.purge(100) == 1
    store.close()


def test_a_file_that_has_the_time_of_day_in_it_loses_no_stream(tmp_path: Path) -> None:
    """Written by the build before: its streams get all of their time from now on."""
    path = tmp_path / "sessions.sqlite"
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE sessions (id TEXT PRIMARY KEY, saved REAL NOT NULL, live INTEGER NOT NULL, data BLOB NOT NULL)"
    )
    db.execute("INSERT INTO sessions VALUES ('a', 1.7e9, 0, x'01')")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    now = 1000.0
    store = SqliteStore(path, lambda: now)
    assert store.set_aside is None
    assert store.age("a") == 0
    now += 10
    assert store.purge(9) == 1
    store.close()


@pytest.mark.parametrize(("damage", "left"), [("garbage", 0), ("truncated", 19), ("version", 20), ("columns", 0)])
def test_a_file_that_can_not_be_used_is_set_aside(tmp_path: Path, damage: str, left: int) -> None:
    """What can be read of it goes on."""
    path = tmp_path / "sessions.sqlite"
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif damage == "columns":
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE sessions (other TEXT)")
        db.execute("CREATE TABLE clock (seconds REAL NOT NULL)")
        db.close()
    else:
        store = SqliteStore(path)
        store.put([(str(i), bytes(5000)) for i in range(20)])
        store.close()
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            db = sqlite3.connect(path)
            db.execute("PRAGMA user_version = 99")
            db.close()
    before = path.read_bytes()
    store = SqliteStore(path)
    assert store.set_aside is not None
    assert len(store.set_aside.read_bytes()) == len(before)
    assert len(list(store.live())) == left
    store.put([("a", b"1")])
    store.close()


def test_a_place_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't open the store"):
        SqliteStore(tmp_path / "file" / "sessions.sqlite")


def test_a_closed_store_fails_aloud(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.sqlite")
    store.close()
    with pytest.raises(StoreError):
        store.put([("a", b"1")])
