"""A stream moves when the other daemon has it on its disk, and not before; what is acknowledged goes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamer.refusals import Refused
from streamer.store import StoreError
from streamer.streams.moved import moved_to
from streamer.streams.moving import Outcome, PeerError
from streamer.streams.registry import Registry
from streamer.streams.snapshot import Snapshot
from tests.engine.support import Events, running
from tests.poison import among
from tests.toys import samples

URL = "http://there:1"


class There:
    """The other daemon's disk. ``during`` is called with each that comes, before it is safe."""

    def __init__(self, during: Any = None) -> None:
        self.streams: dict[str, bytes] = {}
        self.sent = 0
        self._during = during

    def __call__(self, id: str, data: bytes) -> None:
        self.sent += 1
        if self._during is not None:
            self._during(id)
        self.streams[id] = data

    def received(self, id: str) -> int:
        return Snapshot.from_bytes(self.streams[id]).received


def begin(registry: Registry, key: str, count: int = 640, sink: Events | None = None) -> Any:
    session = registry.open(model=None, sample_rate=8000, sink=sink or Events(), key=key)
    session.feed(samples(1, count).tobytes())
    return session


def test_its_client_is_told_where_and_whoever_comes_later_too(toy: Path, tmp_path: Path) -> None:
    sink, there = Events(), There()
    with running(toy, folder=tmp_path, store=True) as registry:
        begin(registry, "k", sink=sink)
        assert registry.mover.move("k", URL, there) is Outcome.MOVED
        assert sink.wait("error")["url"] == URL
        assert there.received("k") == 640
        assert registry.mover.move("k", URL, there) is Outcome.GONE
        for call in (lambda: registry.attach("k", Events()), lambda: begin(registry, "k"), lambda: registry.look("k")):
            with pytest.raises(Refused) as refused:
                call()
            assert (refused.value.reason, refused.value.url) == ("moved", URL)
    with running(toy, folder=tmp_path, store=True) as registry, pytest.raises(Refused, match="goes on at"):
        registry.attach("k", Events())


def test_a_stream_that_is_not_taken_goes_on_here(toy: Path, tmp_path: Path) -> None:
    def refuse(id: str) -> None:
        raise PeerError("full")

    with running(toy, folder=tmp_path, store=True) as registry:
        session = begin(registry, "k")
        said = registry.mover.drain_to(URL, There(refuse))
        assert said == {"moved": 0, "left": {"k": "full"}}
        session.feed(samples(2, 640).tobytes())
        session.end()
        assert registry.gone() is None
        begin(registry, "new")


def test_what_is_acknowledged_while_it_moves_goes_along(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = begin(registry, "k")

        def acknowledge(id: str) -> None:
            if there.sent == 1:
                session.feed(samples(2, 320).tobytes())
                registry.checkpoint(whole=True)

        there = There(acknowledge)
        assert registry.mover.move("k", URL, there) is Outcome.MOVED
        assert (there.sent, there.received("k")) == (2, 960)


def test_a_disk_that_fails_keeps_it_here(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session, there = begin(registry, "k"), There()
        registry.checkpoint(whole=True)

        def fail(rows: Any) -> None:
            raise StoreError("full")

        with monkeypatch.context() as failing:
            failing.setattr(registry.store, "put", fail)
            with pytest.raises(StoreError):
                registry.mover.move("k", URL, there)
        session.feed(samples(2, 320).tobytes())
        assert registry.mover.move("k", URL, there) is Outcome.MOVED
        assert there.received("k") == 960


def test_one_that_can_not_move_holds_up_no_other(toy: Path, tmp_path: Path) -> None:
    number = 0

    def run(keys: list[str]) -> list[int]:
        nonlocal number
        number += 1

        def refuse(id: str) -> None:
            if id == "poison":
                raise PeerError("not this one")

        there = There(refuse)
        with running(toy, folder=tmp_path / str(number), store=True) as registry:
            for key in keys:
                begin(registry, key)
            registry.mover.drain_to(URL, there)
            return [there.received(key) if key in there.streams else -1 for key in keys]

    for alone, beside in among(["a", "b", "c"], "poison", run):
        assert beside == alone == [640, 640, 640]


def test_sleeping_ones_move_and_new_ones_are_sent_on(toy: Path, tmp_path: Path) -> None:
    there = There()
    with running(toy, folder=tmp_path, store=True) as registry:
        begin(registry, "asleep")
        assert registry.mover.evict("asleep")
        begin(registry, "awake")
        assert registry.mover.drain_to(URL, there) == {"moved": 2, "left": {}}
        assert sorted(there.streams) == ["asleep", "awake"]
        with pytest.raises(Refused, match="every new stream"):
            begin(registry, "new")
        registry.mover.stay()
        begin(registry, "new")


def test_bytes_that_come_set_nothing_back(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path / "a", store=True) as registry:
        session = begin(registry, "k")
        early = registry.mover.export("k")
        session.feed(samples(2, 640).tobytes())
        late = registry.mover.export("k")
        assert early is not None
        assert late is not None
        with pytest.raises(Refused, match="awake here"):
            registry.mover.bring("k", late)
    with running(toy, folder=tmp_path / "b", store=True) as registry:
        registry.mover.bring("k", early)
        registry.mover.bring("k", late)
        with pytest.raises(Refused, match="sleeps here at 1280"):
            registry.mover.bring("k", early)
        assert registry.attach("k", Events()).received == 1280
        assert registry.mover.evict("k")
        there = There()
        assert registry.mover.move("k", URL, there) is Outcome.MOVED
        assert moved_to(registry.store.get("k") or b"") == URL  # type: ignore[union-attr]
        registry.mover.bring("k", there.streams["k"])  # and back
        assert registry.attach("k", Events()).received == 1280
