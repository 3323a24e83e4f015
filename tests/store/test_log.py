"""The log of a store on a disk with little room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.attack.small_disk import SmallDisk, small_disk
from streamer.store import StoreError
from streamer.store.sessions import SqliteStore


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(small_disk(tmp_path, megabytes=3))
        except PermissionError as error:
            pytest.skip(str(error))
        yield found


def test_what_is_saved_again_and_again_does_not_fill_the_disk(disk: SmallDisk) -> None:
    store = SqliteStore(disk.path / "sessions.sqlite")
    for number in range(400):  # five megabytes of log, were it never written back
        store.put([("one", number.to_bytes(2, "big") * 4000)])
    assert store.get("one") == (399).to_bytes(2, "big") * 4000
    assert disk.free > 1 << 20
    store.close()


def test_a_log_gives_its_room_back_where_the_disk_is_full(disk: SmallDisk) -> None:
    store = SqliteStore(disk.path / "sessions.sqlite")
    for number in range(300):  # beyond one writing back, so that the file has all the pages it needs
        store.put([("one", number.to_bytes(2, "big") * 4000)])
    disk.fill()
    with pytest.raises(StoreError, match="full"):
        _grow(store)
    assert store.look() is None  # nobody has made room but the log itself
    store.put([("one", b"after" * 1000)])
    assert store.get("one") == b"after" * 1000
    store.close()


def _grow(store: SqliteStore) -> None:
    for number in range(400):
        store.put([("one", number.to_bytes(2, "big") * 4000 * (1 + number))])
