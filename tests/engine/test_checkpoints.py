"""What is on the disk: acknowledged, brought back, refused, or gone; also while streams come and go."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.metrics import Metrics
from streamer.refusals import Refused
from streamer.settings import Settings
from streamer.store.sessions import SqliteStore
from streamer.streams.registry import Registry
from tests.engine.support import PATIENCE, Clock, Events, count, feed, reference, refused, running, slots_used
from tests.toys import level, samples, speech, toy_model


def test_only_what_is_on_the_disk_is_acknowledged(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 600).tobytes())
        assert not sink.of("ack")
        registry.checkpoint()
        assert [event["position"] for event in sink.of("ack")] == [600]
        registry.checkpoint()
        assert len(sink.of("ack")) == 1  # nothing new, nothing said
        assert registry.store is not None
        registry.store.close()
        session.feed(samples(1, 600).tobytes())
        registry.checkpoint()
        assert len(sink.of("ack")) == 1
        assert count(registry, "store_errors_total", kind="put") == 1


def test_without_a_store_what_was_received_is_acknowledged(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, checkpoint_seconds=0.01) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 1000).tobytes())
        assert sink.wait("ack")["position"] in (0, 1000)


def test_a_long_buffer_is_not_written_but_not_acknowledged_either(toy: Path, tmp_path: Path) -> None:
    """A checkpoint holds a buffer's beginning; after a crash the client sends the rest, its markers and its end."""
    pcm = samples(3, 9000)
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.hold()
        session.feed(pcm[:500].tobytes())
        session.marker("early")
        session.feed(pcm[500:].tobytes())
        session.marker("late")
        session.end()
        registry.checkpoint()
        assert sink.of("ack")[-1]["position"] == 640
        registry.checkpoint()
        assert len(sink.of("ack")) == 1
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.attach(session.id, sink)
        assert session.received == 640
        feed(session, [pcm[640:].tobytes()])
        session.marker("late")
        session.end()
        sink.wait("end")
        assert [(event["id"], event["position"]) for event in sink.of("marker")] == [("early", 500), ("late", 9000)]
        finals = [event for event in reference(toy, pcm) if event["type"] == "final"]
        assert [(e["text"], e["words"]) for e in sink.of("final")] == [(e["text"], e["words"]) for e in finals]


@pytest.mark.parametrize("kind", ["damaged", "other file"])
def test_a_snapshot_that_does_not_fit_is_refused_aloud(toy: Path, tmp_path: Path, kind: str) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(samples(1, 1000).tobytes())
        registry.checkpoint()
    model = toy
    if kind == "damaged":
        store = SqliteStore(tmp_path / "sessions.sqlite")
        data = store.get(session.id)
        assert data is not None
        store.put([(session.id, data[:-1])])
        store.close()
    else:
        (tmp_path / "other").mkdir()
        model = toy_model(tmp_path / "other", version="2")
        for kept in (tmp_path / "models").iterdir():  # with it, the old version would go on
            kept.unlink()
    with running(model, folder=tmp_path, store=True) as registry:
        assert count(registry, "store_errors_total", kind="snapshot") == 1
        assert slots_used(registry) == 0
        with pytest.raises(Refused) as caught:
            registry.attach(session.id, Events())
        assert caught.value.reason == "snapshot"
        registry.open(model=None, sample_rate=8000, sink=Events())


def test_a_restored_stream_knows_where_it_stands(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(samples(1, 1000).tobytes())
        registry.drain(PATIENCE)
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.attach(session.id, sink)
        session.marker("m")
        session.feed(samples(2, 280).tobytes())
        assert sink.wait("marker")["position"] == 1000


def test_a_gap_survives_a_restart_before_and_after_it_is_told(toy: Path, tmp_path: Path) -> None:
    """Saved while the gap is still to be told, and again behind it, where times count on in the stream's own time."""
    bounds: dict[str, Any] = {"folder": tmp_path, "store": True, "buffer_seconds": 1.0}
    with running(toy, **bounds) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), overflow="gap")
        session.hold()
        for _ in range(10):
            session.feed(level(0.0, 0.11).tobytes())
        registry.checkpoint(whole=True)
    with running(toy, **bounds) as registry:
        sink = Events()
        session = registry.attach(session.id, sink)
        assert session.received == 8800
        gap = sink.wait("gap")
        assert (gap["position"], gap["dropped"]) == (4800, 4800)  # down to half of what fits
        assert registry.drain(PATIENCE) == 1
    with running(toy, **bounds) as registry:
        sink = Events()
        session = registry.attach(session.id, sink, after_seq=gap["seq"])
        session.feed(speech("A").tobytes())
        session.end()
        sink.wait("end")
        (final,) = sink.of("final")
        assert final["text"] == "A"
        assert final["start"] == pytest.approx(1.1, abs=0.05)


def test_an_evicted_stream_is_saved_with_all_that_waits(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.hold()
        session.feed(samples(1, 8000).tobytes())
        registry.detach(session)
        clock.ahead = 3600
        registry.sweep()
        sink = Events()
        again = registry.attach(session.id, sink)
        assert (again is not session, again.received) == (True, 8000)
        again.marker("m")
        again.end()
        assert sink.wait("marker")["position"] == 8000


def test_a_stream_that_is_done_while_it_is_written_leaves_nothing_behind(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("A").tobytes())
        put = registry.store.put  # type: ignore[union-attr]

        def late(rows: Any) -> None:
            registry.discard(session)
            put(rows)

        registry.store.put = late  # type: ignore[union-attr, method-assign]
        registry.checkpoint()
        assert registry.store is not None
        assert registry.store.get(session.id) is None


def test_a_client_that_comes_back_while_it_is_evicted_keeps_its_stream(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("A").tobytes())
        registry.detach(session)
        sink = Events()
        saved = registry.keeper.disk.save

        def meanwhile(*given: Any, **wishes: Any) -> Any:
            assert registry.attach(session.id, sink) is session
            return saved(*given, **wishes)

        registry.keeper.disk.save = meanwhile  # type: ignore[method-assign]
        clock.ahead = 3600
        registry.sweep()
        registry.keeper.disk.save = saved  # type: ignore[method-assign]
        assert count(registry, "evictions_total", reason="grace") == 0
        session.feed(speech("B").tobytes())
        session.end()
        sink.wait("end")
        assert sink.of("final")[-1]["text"] == "AB"


def test_drain_runs_what_was_received_then_saves(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        sinks = [Events() for _ in range(20)]
        for number, sink in enumerate(sinks):
            session = registry.open(model=None, sample_rate=8000, sink=sink)
            session.feed(samples(number, 32100).tobytes())
        assert registry.drain(PATIENCE) == 20
        for sink in sinks:
            assert sink.wait("restart")["position"] == 32100
            assert sink.got[-1]["type"] == "restart"
        assert count(registry, "chunks_total", model="toy") == 20 * (32100 // 320)
        refused(registry, "draining")
    with running(toy, folder=tmp_path, store=True) as registry:
        assert slots_used(registry) == 20


# -- one of a group --------------------------------------------------------------------------------------------------


def poison(session: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(*given: Any, **wishes: Any) -> Any:
        raise error

    monkeypatch.setattr(session, "snapshot", fails)


@pytest.mark.parametrize("error", [MemoryError(), TimeoutError("no chunk"), RuntimeError("a bug")])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_one_stream_that_can_not_be_saved_keeps_no_other_from_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: int
) -> None:
    """The others are acknowledged, and all of them go on, the one that fails too."""
    with running(toy, folder=tmp_path, store=True, max_saved_together=4) as registry:
        sinks = [Events() for _ in range(4)]
        sessions = [registry.open(model=None, sample_rate=8000, sink=sink) for sink in sinks]
        for session in sessions:
            session.feed(samples(1, 600).tobytes())
        poison(sessions[place], monkeypatch, error)
        registry.checkpoint()
        assert [bool(sink.of("ack")) for sink in sinks] == [number != place for number in range(4)]
        assert count(registry, "store_errors_total", kind="snapshot") == 1
        monkeypatch.undo()
        for session, sink in zip(sessions, sinks, strict=True):
            session.feed(samples(1, 6000)[600:].tobytes())
            session.end()
            sink.wait("end")
            assert sink.results == reference(toy, samples(1, 6000))
        registry.checkpoint()


def test_an_eviction_that_fails_leaves_nobody_held(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:
        first = registry.open(model=None, sample_rate=8000, sink=Events())
        second = registry.open(model=None, sample_rate=8000, sink=Events())
        for session in (first, second):
            registry.detach(session)
        poison(first, monkeypatch, MemoryError())
        clock.ahead = 3600
        registry.sweep()
        sink = Events()
        again = registry.attach(second.id, sink)
        again.feed(speech("A").tobytes())
        again.end()
        sink.wait("end")
        assert sink.of("final")[-1]["text"] == "A"


# -- who waits for the disk ------------------------------------------------------------------------------------------


class SlowStore(SqliteStore):
    """A disk that takes as long as it is told to, and knows who waits for it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go_on = threading.Event()
        self.go_on.set()
        self.threads: set[str] = set()
        self.reached = threading.Event()

    def delete(self, ids: Any) -> None:
        self._wait()
        super().delete(ids)

    def retire(self, ids: Any) -> None:
        self._wait()
        super().retire(ids)

    def _wait(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.reached.set()
        assert self.go_on.wait(PATIENCE)


def test_no_lane_and_no_sessions_lock_waits_for_the_disk(trap: Path, tmp_path: Path) -> None:
    """A stream fails in a lane: what is on the disk of it is deleted by another thread, while its client is told and
    the others run."""
    settings = Settings(models=(str(trap),), state_directory=tmp_path, lanes=1, checkpoint_seconds=3600)
    store = SlowStore(tmp_path / "sessions.sqlite")
    registry = Registry(settings, Metrics(), store)
    registry.load()
    try:
        bad, good = Events(), Events()
        session = registry.open(model=None, sample_rate=8000, sink=bad)
        session.feed(samples(1, 400).tobytes())
        registry.checkpoint()
        store.go_on.clear()
        session.feed(np.full(800, 32767, np.int16).tobytes())
        assert store.reached.wait(PATIENCE)  # it is being deleted, and that takes its time
        assert bad.wait("error")["code"] == "model_failed"
        other = registry.open(model=None, sample_rate=8000, sink=good)
        other.feed(speech("A").tobytes())
        other.end()
        good.wait("end")
        store.go_on.set()
        registry.keeper.settle()
        registry.checkpoint()
        assert store.get(session.id) is None
        assert store.threads == {"keeper"}
    finally:
        store.go_on.set()
        registry.close()
