"""Streams with a key in process: found again by whoever knows the name, awake or asleep, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.refusals import BadRows, Refused
from streamer.streams.exchange import Exchange
from streamer.streams.registry import Registry
from tests.engine.support import PATIENCE, Clock, Events, count, running, slots_used
from tests.rows import row_model, some_rows

MONTH = 31 * 86400.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("keys")
    return [row_model(folder, several=True, condition=True), row_model(folder, name="four", chunk=4)]


@pytest.fixture
def registry(models: list[Path], tmp_path: Path) -> Iterator[Registry]:
    with running(*models, folder=tmp_path, store=True) as registry:
        yield registry


def rows(seed: int, number: int) -> Any:
    return some_rows(seed, number, several=True)


def ask(registry: Registry, key: str, data: Any, **wishes: Any) -> list[dict[str, Any]]:
    """A request and its answer."""
    done = threading.Event()
    exchange = Exchange(done.set)
    session = registry.open(**{"model": "plant", "key": key, "sink": exchange, **wishes})
    exchange.send(session, data)
    assert done.wait(PATIENCE)
    registry.detach(session, exchange)
    assert exchange.error is None
    return exchange.events


def test_a_request_has_the_events_of_its_rows(registry: Registry) -> None:
    for turn in range(3):
        events = ask(registry, "a", rows(turn, 5))
        assert [(e["start"], e["seq"]) for e in events] == [(at, at + 1) for at in range(5 * turn, 5 * turn + 5)]
    assert count(registry, "rows_total", model="plant") == 15
    assert count(registry, "buffered_rows", model="plant") == 0


def test_conditions_hold_for_the_whole_stream(registry: Registry) -> None:
    data = rows(1, 4)
    plain = ask(registry, "plain", data)
    given = ask(registry, "given", data[:2], conditions={"c": [1, 0, 0, 0]}) + ask(registry, "given", data[2:])
    whole = ask(registry, "whole", data, conditions={"c": [1, 0, 0, 0]})
    for one, other in zip(given, whole, strict=True):
        np.testing.assert_allclose(one["outputs"]["z"], other["outputs"]["z"], rtol=1e-5)
    assert not np.allclose(given[-1]["outputs"]["z"], plain[-1]["outputs"]["z"], atol=1e-3)
    with pytest.raises(Refused, match="goes on with other conditions") as caught:
        ask(registry, "given", data, conditions={"c": [0, 0, 0, 0]})
    assert caught.value.reason == "conflict"
    with pytest.raises(Refused, match="no condition 'voice'"):
        ask(registry, "new", data, conditions={"voice": [1]})
    assert slots_used(registry) == 3


def test_conditions_sleep_with_their_stream(models: list[Path], tmp_path: Path) -> None:
    data = rows(1, 6)
    with running(*models, folder=tmp_path, store=True) as registry:
        whole = ask(registry, "whole", data, conditions={"c": [1, 0, 0, 0]})
        first = ask(registry, "key", data[:3], conditions={"c": [1, 0, 0, 0]})
        registry.checkpoint()
    with running(*models, folder=tmp_path, store=True) as registry:
        second = ask(registry, "key", data[3:])
    for one, other in zip(first + second, whole, strict=True):
        assert one["start"] == other["start"]
        np.testing.assert_array_equal(one["outputs"]["z"], other["outputs"]["z"])


def test_a_gap_keeps_the_conditions_and_forgets_the_rest(models: list[Path], tmp_path: Path) -> None:
    with running(*models, folder=tmp_path, buffer_bytes=14 * 8) as registry:
        sink, alone = Events(), Events()
        wishes: dict[str, Any] = {"model": "plant", "overflow": "gap", "conditions": {"c": [1, 0, 0, 0]}}
        session = registry.open(**wishes, sink=sink)
        session.hold()
        data = rows(2, 20)
        session.feed_rows(data)
        session.go_on()
        session.end()
        sink.wait("end")
        (gap,) = sink.of("gap")
        assert (gap["position"], gap["dropped"]) == (16, 16)
        assert count(registry, "dropped_rows_total", model="plant") == 16
        other = registry.open(**wishes, sink=alone)
        other.feed_rows(data[16:])
        other.end()
        alone.wait("end")
        for one, two in zip(sink.of("outputs"), alone.of("outputs"), strict=True):
            assert one["start"] == two["start"] + 16
            np.testing.assert_array_equal(one["outputs"]["z"], two["outputs"]["z"])


def test_feed_rows_takes_only_the_models_rows(registry: Registry) -> None:
    session = registry.open(model="plant", sink=Events())
    for wrong in (np.zeros(3, np.float32), some_rows(1, 3), np.zeros((2, 2), session.reader.dtype)):
        with pytest.raises(BadRows, match="is expected"):
            session.feed_rows(wrong)
    assert session.received == 0


def test_a_sample_rate_is_for_sound_only(registry: Registry) -> None:
    with pytest.raises(Refused, match="takes rows, not sound: leave out sample_rate") as caught:
        registry.open(model="plant", sink=Events(), sample_rate=8000)
    assert caught.value.reason == "rate"


def test_sound_without_a_rate_comes_at_the_models_own(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        session = registry.open(model=None, sink=Events())
        assert registry.describe(session)["sample_rate"] == 8000


def test_no_clock_costs_a_stream_its_life(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live stream whose rows are on the disk is purged by nobody, whatever the time of day does (idle_seconds=0: it
    may be silent for ever)."""
    import time

    wall = time.time
    with running(*models, folder=tmp_path, store=True, idle_seconds=0.0, grace_seconds=1e9) as registry:
        sink = Events()
        session = registry.open(model="plant", key="pump", sink=sink)
        session.feed_rows(rows(1, 5))
        while session.busy:
            threading.Event().wait(0.001)
        registry.checkpoint()
        assert sink.of("ack")[-1]["position"] == 5
        for jump in (MONTH, -MONTH):
            monkeypatch.setattr("time.time", lambda jump=jump: wall() + jump)
            registry.sweep()
        store = registry.store
        assert store is not None
        assert store.get("pump") is not None
        # as a kill leaves it: nothing more is written
        monkeypatch.setattr(registry.keeper, "checkpoint", lambda **_: None)
    with running(*models, folder=tmp_path, store=True) as registry:
        assert registry.attach("pump", Events()).received == 5


def test_a_live_stream_does_not_age_on_the_disk_while_it_is_silent(models: list[Path], tmp_path: Path) -> None:
    clock = Clock()
    with running(*models, folder=tmp_path, store=True, clock=clock, idle_seconds=0.0, keep_seconds=100.0) as registry:
        store: Any = registry.store
        store._clock = clock
        session = registry.open(model="plant", key="pump", sink=Events())
        session.feed_rows(rows(1, 5))
        while session.busy:
            threading.Event().wait(0.001)
        registry.checkpoint()
        clock.ahead = 1000
        registry.sweep()
        assert store.get("pump") is not None
        registry.detach(session)
        clock.ahead = 1100
        registry.sweep()  # to sleep
        assert registry.look("pump")["state"] == "asleep"  # type: ignore[index]
        clock.ahead = 1190
        registry.sweep()
        assert registry.look("pump")["age_seconds"] == pytest.approx(90, abs=5)  # type: ignore[index]
        clock.ahead = 1210
        registry.sweep()
        assert registry.look("pump") is None
        assert registry.open(model="plant", key="pump", sink=Events()).resumed is False


def test_a_deleted_key_stays_deleted_though_its_checkpoint_is_under_way(registry: Registry) -> None:
    first = registry.open(model="plant", key="pump", sink=Events())
    first.feed_rows(rows(1, 5))
    store: Any = registry.store
    put = store.put

    def late(written: Any) -> None:
        put(written)
        store.put = put
        registry.discard(first)
        second = registry.open(model="plant", key="pump", sink=Events())
        assert (second.received, second.resumed) == (0, False)

    store.put = late
    registry.checkpoint()
    assert store.get("pump") is None
    registry.checkpoint()
    assert registry.look("pump")["position"] == 0  # type: ignore[index]
    assert store.get("pump") is not None


def test_many_who_open_one_key_at_once_have_one_stream(registry: Registry) -> None:
    sinks = [Events() for _ in range(8)]
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def opens(sink: Events) -> None:
        barrier.wait(PATIENCE)
        found.append(registry.open(model="plant", key="crowd", sink=sink))

    threads = [threading.Thread(target=opens, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert slots_used(registry) == 1
    assert sum(bool(sink.of("error")) for sink in sinks) == 7  # told that somebody took over


def test_a_snapshot_of_another_file_is_refused_until_it_is_deleted(models: list[Path], tmp_path: Path) -> None:
    with running(models[1], folder=tmp_path, store=True) as registry:
        registry.open(model="four", key="pump", sink=Events())
        registry.checkpoint()
    (tmp_path / "other").mkdir()
    other = row_model(tmp_path / "other", name="four", chunk=4, version="2")
    for kept in (tmp_path / "models").iterdir():  # with it, the old version would go on
        kept.unlink()
    with running(other, folder=tmp_path, store=True) as registry:
        with pytest.raises(Refused, match="made by another file") as caught:
            registry.open(model="four", key="pump", sink=Events())
        assert caught.value.reason == "snapshot"
        assert registry.delete("pump")
        assert registry.open(model="four", key="pump", sink=Events()).received == 0


def test_room_is_made_only_by_what_can_sleep(models: list[Path], tmp_path: Path) -> None:
    """All slots are taken by streams without a client: the one that waits the longest goes to the disk. Where there is
    no disk, or it fails, the newcomer is refused and nobody loses anything."""
    with running(models[1], folder=tmp_path / "a", store=True, capacity=2) as registry:
        for key in "abc":
            session = registry.open(model="four", key=key, sink=Events())
            session.feed_rows(some_rows(1, 6))
            registry.detach(session)
        assert [registry.look(key)["state"] for key in "abc"] == ["asleep", "waiting", "waiting"]  # type: ignore[index]
        assert registry.open(model="four", key="a", sink=Events()).received == 6
        assert count(registry, "evictions_total", reason="capacity") == 2
        assert count(registry, "resumes_total", source="store") == 1
        assert registry.store is not None
        registry.store.close()
        with pytest.raises(Refused, match="all 2 slots") as caught:
            registry.open(model="four", sink=Events())
        assert caught.value.reason == "capacity"
    with running(models[1], folder=tmp_path / "b", capacity=1) as registry:
        session = registry.open(model="four", key="a", sink=Events())
        registry.detach(session)
        with pytest.raises(Refused, match="all 1 slots"):
            registry.open(model="four", key="b", sink=Events())
        assert registry.open(model="four", key="a", sink=Events()) is session


def test_a_request_whose_rows_are_not_run_before_the_daemon_goes_is_told_so(registry: Registry) -> None:
    done = threading.Event()
    exchange = Exchange(done.set)
    session = registry.open(model="plant", key="late", sink=exchange)
    session.hold()
    exchange.send(session, rows(1, 3))
    assert not done.is_set()
    registry.drain(0.0)
    assert done.wait(PATIENCE)
    assert exchange.error is not None
    assert exchange.error["code"] == "draining"
    session.go_on()


def test_a_stream_that_does_not_last_leaves_nothing_on_the_disk(models: list[Path], tmp_path: Path) -> None:
    clock = Clock()
    with running(models[1], folder=tmp_path, store=True, clock=clock, capacity=1) as registry:
        session = registry.open(model="four", stream="passing", lasting=False, sink=Events())
        session.feed_rows(some_rows(1, 6))
        asked = threading.Event()
        registry.keeper.ask(session, lambda position: asked.set())
        assert asked.wait(PATIENCE)
        registry.detach(session)
        with pytest.raises(Refused, match="all 1 slots"):  # it can't sleep, so nobody gets its slot
            registry.open(model="four", key="other", sink=Events())
        clock.ahead = 3600
        registry.sweep()
        assert slots_used(registry) == 0
        assert registry.store is not None
        assert list(registry.store.live()) == []
        assert registry.look("passing") is None


def test_whoever_waits_for_rows_is_told_first_why_they_failed(models: list[Path], tmp_path: Path) -> None:
    """The error is held back until the slot is free; the answer of a request is not complete before."""
    trap = row_model(tmp_path, name="trap", fails_on=7.0)
    bad = some_rows(1, 3)
    bad["x"][1] = 7.0
    with running(trap, folder=tmp_path, capacity=1) as registry:
        for number in range(50):
            done = threading.Event()
            exchange = Exchange(done.set)
            session = registry.open(model="trap", key=f"{number}", sink=exchange)
            exchange.send(session, bad)
            assert done.wait(PATIENCE)
            assert exchange.error is not None
            assert exchange.error["code"] == "model_failed"
