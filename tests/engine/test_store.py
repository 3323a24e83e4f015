"""The session store on a real disk."""

from __future__ import annotations

import sqlite3
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


def test_old_ones_are_forgotten(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sessions.sqlite")
    store.put([("a", b"1")])
    assert store.purge(3600) == 0
    assert store.purge(-1) == 1
    assert store.get("a") is None
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "version", "columns"])
def test_a_file_that_can_not_be_used_is_set_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "sessions.sqlite"
    if damage == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif damage == "columns":
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE sessions (other TEXT)")
        db.close()
    else:
        store = SqliteStore(path)
        store.put([(str(i), bytes(5000)) for i in range(20)])
        store.close()
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:30_000])
        else:
            db = sqlite3.connect(path)
            db.execute("PRAGMA user_version = 99")
            db.close()
    before = path.read_bytes()
    store = SqliteStore(path)
    assert store.set_aside is not None
    assert len(store.set_aside.read_bytes()) == len(before)
    assert list(store.live()) == []
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
