"""What the keeper may do with a stream: never write less than was acknowledged, let go of nothing that is not safe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.refusals import Refused
from streamer.store import StoreError
from streamer.streams.registry import Registry
from streamer.streams.session import Session
from streamer.streams.snapshot import Snapshot, SnapshotError
from tests.engine.support import PATIENCE, Clock, Events, count, running, slots_used
from tests.toys import samples


def received_on_disk(registry: Any, id: str) -> int | None:
    data = registry.store.get(id)
    return None if data is None else Snapshot.from_bytes(data).received


def hold_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that wake run nothing at first, as behind a busy lane."""
    restore = Session._restore

    def held(session: Session, saved: Snapshot) -> None:
        session.hold()
        restore(session, saved)

    monkeypatch.setattr(Session, "_restore", held)


# -- what was acknowledged -------------------------------------------------------------------------------------------


def test_a_checkpoint_writes_no_less_than_was_acknowledged_before_the_restart(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Events()
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=sink, key="k")
        session.hold()
        session.feed(samples(1, 6400).tobytes())
        registry.drain(0.0)
        assert (sink.wait("ack")["position"], sink.wait("restart")["position"]) == (6400, 6400)
    hold_restored(monkeypatch)
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.attach("k", Events())
        assert session.received == 6400
        registry.checkpoint()
        assert received_on_disk(registry, "k") == 6400
        session.feed(samples(2, 6400).tobytes())
        registry.checkpoint()  # what is new is cut as before
        assert received_on_disk(registry, "k") == 6400


def test_a_checkpoint_writes_no_less_than_was_acknowledged_in_this_run(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, key="k")
        session.hold()
        session.feed(samples(1, 6400).tobytes())
        registry.checkpoint(whole=True)
        session.feed(samples(2, 320).tobytes())
        registry.checkpoint()
        assert received_on_disk(registry, "k") == 6400
        assert [event["position"] for event in sink.of("ack")] == [6400]


def test_the_rounds_end_with_the_drain(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True, checkpoint_seconds=0.01) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.drain(PATIENCE)
        rounds, asked = [], threading.Event()
        registry.keeper.checkpoint = registry.keeper.sweep = lambda: rounds.append(1)  # type: ignore[method-assign]
        turns = 0
        while turns < 20:  # the keeper's thread still does what it is asked for
            asked.clear()
            registry.keeper.ask(session, lambda position: asked.set())
            assert asked.wait(PATIENCE)
            turns += 1
            threading.Event().wait(0.002)
        assert not rounds


# -- who is let go of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["grace", "idle_timeout"])
@pytest.mark.parametrize("kind", ["put", "snapshot"])
def test_a_stream_that_can_not_be_saved_stays(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, kind: str
) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock, idle_seconds=10.0) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, key="k")
        session.feed(samples(1, 100).tobytes())
        registry.checkpoint()  # an older one is on the disk
        session.feed(samples(1, 100).tobytes())
        if reason == "grace":
            registry.detach(session)

        def fails(*given: Any, **wishes: Any) -> Any:
            raise StoreError("the disk is full")

        monkeypatch.setattr(*((registry.store, "put") if kind == "put" else (session, "snapshot")), fails)
        clock.ahead = 3600
        registry.sweep()
        assert registry._table.get("k") is session
        assert (session.state, sink.of("error")) == ("active", [])
        monkeypatch.undo()
        registry.sweep()
        assert registry._table.get("k") is None
        assert received_on_disk(registry, "k") == 200


def test_rows_that_come_while_their_stream_is_evicted_keep_it(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.detach(session)
        put = registry.store.put  # type: ignore[union-attr]

        def meanwhile(rows: Any) -> None:
            put(rows)
            session.feed(samples(1, 100).tobytes())

        registry.store.put = meanwhile  # type: ignore[union-attr, method-assign]
        clock.ahead = 3600
        registry.sweep()
        assert registry._table.get("k") is session
        registry.store.put = put  # type: ignore[union-attr, method-assign]
        registry.sweep()
        assert received_on_disk(registry, "k") == 100


# -- what is deleted -------------------------------------------------------------------------------------------------


def fails(*given: Any, **wishes: Any) -> Any:
    raise StoreError("the disk is full")


@pytest.mark.parametrize("asleep", [False, True])
def test_a_deletion_that_fails_is_told_and_done_later(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asleep: bool
) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        session.feed(samples(1, 100).tobytes())
        registry.checkpoint()
        if asleep:
            registry.detach(session)
            assert registry.keeper.evict(session, "grace")
        monkeypatch.setattr(registry.store, "delete", fails)
        with pytest.raises(Refused) as caught:
            registry.delete("k")
        assert caught.value.reason == "store"
        if not asleep:
            with pytest.raises(Refused) as caught:  # the key must not go on where it was
                registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
            assert caught.value.reason == "store"
        monkeypatch.undo()
        assert registry.delete("k") is asleep  # what was noted is done already
        assert registry.store is not None
        assert registry.store.get("k") is None
        again = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        assert (again.received, again.resumed) == (0, False)


def test_what_could_not_be_deleted_is_no_matter_for_the_next_of_its_name(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id of the caller's own is not looked up on the disk: its snapshot is written over the old one, and stays."""
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), stream="s")
        session.feed(samples(1, 100).tobytes())
        registry.checkpoint()
        monkeypatch.setattr(registry.store, "delete", fails)
        registry.discard(session)
        again = registry.open(model=None, sample_rate=8000, sink=Events(), stream="s")
        again.feed(samples(1, 300).tobytes())
        registry.checkpoint()
        monkeypatch.undo()
        registry.checkpoint()
        registry.keeper.settle()
        assert received_on_disk(registry, "s") == 300


def test_a_stream_that_wakes_while_it_is_deleted_is_deleted_awake(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        session.feed(samples(1, 100).tobytes())
        registry.detach(session)
        assert registry.keeper.evict(session, "grace")
        sink, delete = Events(), registry.keeper.delete

        def meanwhile(id: str) -> bool:
            if registry._table.get(id) is None:
                registry.attach("k", sink)
            return delete(id)

        registry.keeper.delete = meanwhile  # type: ignore[method-assign]
        assert registry.delete("k")
        assert sink.wait("error")["code"] == "deleted"
        assert registry.store is not None
        assert (registry._table.get("k"), registry.store.get("k")) == (None, None)


def test_a_store_that_does_not_know_an_age_is_a_refusal(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.detach(session)
        assert registry.keeper.evict(session, "grace")
        monkeypatch.setattr(registry.store, "age", fails)
        with pytest.raises(Refused) as caught:
            registry.look("k")
        assert caught.value.reason == "store"


# -- slots and waits -------------------------------------------------------------------------------------------------


def test_who_waits_for_a_chunk_of_a_stream_that_is_closed_waits_no_longer(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        model = registry.engine(None).model
        run, started, go_on = model.run, threading.Event(), threading.Event()

        def slow(feeds: Any) -> Any:
            started.set()
            assert go_on.wait(PATIENCE)
            return run(feeds)

        model.run = slow  # type: ignore[method-assign]
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(samples(1, 320).tobytes())
        assert started.wait(PATIENCE)
        raised: list[Exception] = []

        def save() -> None:
            try:
                session.snapshot(PATIENCE)
            except Exception as error:
                raised.append(error)

        waiting = threading.Thread(target=save)
        waiting.start()
        while not session._holders:  # it waits for the chunk
            threading.Event().wait(0.001)
        session.close()
        waiting.join(PATIENCE / 2)  # the chunk is still under way
        go_on.set()
        assert [type(error) for error in raised] == [SnapshotError]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_stream_that_can_not_be_brought_back_keeps_no_slot(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with running(toy, folder=tmp_path, store=True, capacity=2) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.detach(session)
        assert registry.keeper.evict(session, "grace")

        def broken(data: bytes) -> Any:
            raise error

        monkeypatch.setattr(registry.engine(None).task, "load", broken)
        for _ in range(3):
            with pytest.raises(type(error)):
                registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        assert slots_used(registry) == 0


def test_a_stream_that_can_not_be_brought_back_keeps_no_daemon_from_its_start(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        for key in ("a", "b"):
            registry.open(model=None, sample_rate=8000, sink=Events(), key=key)
        registry.drain(PATIENCE)
    restore = Session._restore

    def broken(session: Session, saved: Snapshot) -> None:
        if saved.id == "a":
            session.close()
            raise RuntimeError("a bug")
        restore(session, saved)

    monkeypatch.setattr(Session, "_restore", broken)
    with running(toy, folder=tmp_path, store=True) as registry:
        assert (registry._table.get("a"), slots_used(registry)) == (None, 1)
        assert received_on_disk(registry, "a") == 0  # it may go better another time


# -- one of many -----------------------------------------------------------------------------------------------------


def test_what_fails_in_a_round_costs_nobody_else_his(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        sessions = [registry.open(model=None, sample_rate=8000, sink=Events()) for _ in range(3)]
        for session in sessions:
            registry.detach(session)

        def broken(*given: Any) -> bool:
            raise RuntimeError("a bug")

        monkeypatch.setattr(sessions[0], "leave", broken)
        purged: list[float] = []
        monkeypatch.setattr(registry.keeper.disk, "purge", purged.append)
        clock.ahead = 3600
        registry.sweep()
        assert registry._table.all() == [sessions[0]]
        assert len(purged) == 1


def test_streams_whose_chunks_do_not_come_back_are_waited_for_together(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All members of a round have one deadline, however many are stuck."""
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        deadlines: list[float] = []

        def save(sessions: Any, *, whole: bool, until: float) -> dict[Any, Any]:
            deadlines.append(until)
            return {}

        for _ in range(3):
            registry.detach(registry.open(model=None, sample_rate=8000, sink=Events()))
        monkeypatch.setattr(registry.keeper.disk, "save", save)
        clock.ahead = 3600
        registry.sweep()
        assert len(deadlines) == 3
        assert len(set(deadlines)) == 1


def test_a_stream_that_is_over_makes_no_room(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True, capacity=2) as registry:
        sink = Events()
        over = registry.open(model=None, sample_rate=8000, sink=sink)
        over.end()
        sink.wait("end")
        registry.detach(over)  # the longest away
        away = [registry.open(model=None, sample_rate=8000, sink=Events(), key=key) for key in "ab"]
        for session in away:
            registry.detach(session)
        registry.open(model=None, sample_rate=8000, sink=Events(), key="c")
        assert registry._table.get("a") is None
        assert registry._table.holds(over)  # its client may still come for the end


def test_one_who_asked_and_fails_keeps_nobody_else_from_his_answer(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        told = threading.Event()

        def gone(position: int) -> None:
            raise RuntimeError("the loop is closed")

        with registry.keeper._writing:  # both are asked for before the keeper comes to it
            registry.keeper.ask(session, gone)
            registry.keeper.ask(session, lambda position: told.set())
        assert told.wait(PATIENCE / 4)


def test_a_stream_that_is_deleted_while_it_is_evicted_is_no_eviction(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.detach(session)
        put = registry.store.put  # type: ignore[union-attr]

        def meanwhile(rows: Any) -> None:
            put(rows)
            registry.release(session)

        registry.store.put = meanwhile  # type: ignore[union-attr, method-assign]
        clock.ahead = 3600
        registry.sweep()
        registry.keeper.settle()
        assert count(registry, "evictions_total", reason="grace") == 0
        assert received_on_disk(registry, "k") is None


def asleep(registry: Registry, key: str, rows: int) -> None:
    """A stream that has ``rows`` rows and is on the disk alone."""
    session = registry.open(model=None, sample_rate=8000, sink=Events(), key=key)
    session.feed(samples(1, 8000)[session.received : session.received + rows].tobytes())
    registry.detach(session)
    assert registry.keeper.evict(session, "grace")


def between(registry: Registry, call: str, what: Callable[[], object]) -> None:
    """``what`` happens once, at the moment at which admission's ``call`` is reached."""
    inner, todo = getattr(registry._admission, call), [what]

    def wrapped(*given: Any, **named: Any) -> Any:
        if todo:
            todo.pop()()
        return inner(*given, **named)

    setattr(registry._admission, call, wrapped)


@pytest.mark.parametrize("road", ["attach", "open"])
def test_a_stream_that_is_deleted_while_it_wakes_does_not_come_back(toy: Path, tmp_path: Path, road: str) -> None:
    """Its snapshot has been read; then it is deleted; then it would be there again."""
    with running(toy, folder=tmp_path, store=True) as registry:
        asleep(registry, "k", 1000)
        between(registry, "wake", lambda: registry.delete("k"))
        if road == "attach":
            with pytest.raises(Refused, match="no stream 'k'"):
                registry.attach("k", Events())
            assert registry._table.get("k") is None
        else:
            session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
            assert (session.received, session.resumed) == (0, False)
        assert registry.store is not None
        assert registry.store.get("k") is None
        assert slots_used(registry) == (road == "open")


def test_a_stream_that_wakes_at_the_moment_of_its_deletion_is_deleted(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        asleep(registry, "k", 1000)
        sink, put_away = Events(), registry.keeper.disk.put_away
        calls: list[str] = []

        def meanwhile(id: str, *, delete: bool) -> bool:
            calls.append(id)
            if len(calls) == 1:  # it was looked for in memory, and is still on the disk
                registry.attach("k", sink)
            return put_away(id, delete=delete)

        registry.keeper.disk.put_away = meanwhile  # type: ignore[method-assign]
        assert registry.delete("k")
        assert sink.wait("error")["code"] == "deleted"
        assert registry.store is not None
        assert (registry._table.get("k"), registry.store.get("k")) == (None, None)


@pytest.mark.parametrize("road", ["attach", "open"])
def test_who_wakes_a_stream_gets_its_last_snapshot(toy: Path, tmp_path: Path, road: str) -> None:
    """Others wake it, bring it further and have it sleep again, after its snapshot has been read."""
    with running(toy, folder=tmp_path, store=True) as registry:
        asleep(registry, "k", 1000)
        between(registry, "wake", lambda: asleep(registry, "k", 500))
        if road == "attach":
            session = registry.attach("k", Events())
        else:
            session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        assert session.received == 1500


def test_a_key_does_not_begin_over_a_stream_that_went_to_sleep_meanwhile(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        between(registry, "begin", lambda: asleep(registry, "k", 1000))
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        assert (session.received, session.resumed) == (1000, True)
        assert slots_used(registry) == 1


def test_nothing_is_remembered_of_who_opened_what(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        asleep(registry, "k", 100)
        registry.attach("k", Events())
        with pytest.raises(Refused):
            registry.attach("other", Events())
        assert not registry._table._claims
