"""The hub: who comes in, who waits, who is thrown out, what is on the disk; each with its reason and its count."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.engine.engine import Engine
from streamer.engine.model import Model, ModelError
from streamer.hub import Hub, Refused
from streamer.metrics import Metrics
from streamer.session import BadInput, Limits, Overflow, Session, TooManyMarkers
from streamer.settings import Settings
from streamer.store.sqlite import SqliteStore
from streamer.tasks import create
from tests.engine.support import PATIENCE, Clock, Events, count, feed, reference, running, slots_used
from tests.toys import level, samples, speech, toy_model

TINY = speech("AB").tobytes()


def refused(hub: Hub, reason: str, **wishes: object) -> Refused:
    before = count(hub, "refusals_total", reason=reason)
    with pytest.raises(Refused) as caught:
        hub.open(**{"model": None, "sample_rate": 8000, "sink": Events(), **wishes})  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert count(hub, "refusals_total", reason=reason) == before + 1
    return caught.value


# -- the door --------------------------------------------------------------------------------------------------------


def test_what_can_not_be_served_is_refused_with_a_reason(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, capacity=2) as hub:
        assert "toy" in refused(hub, "unknown_model", model="other").message
        refused(hub, "options", options={"no_such": 1})
        refused(hub, "options", overflow="sometimes")
        refused(hub, "rate", sample_rate=1)
        first = hub.open(model="toy", sample_rate=8000, sink=Events(), stream="mine")
        refused(hub, "duplicate", stream="mine")
        hub.open(model="toy", sample_rate=8000, sink=Events())
        full = refused(hub, "capacity")
        assert full.retry_after is not None
        hub.discard(first)
        hub.open(model="toy", sample_rate=8000, sink=Events())
        with pytest.raises(Refused, match="no stream 'nobody'"):
            hub.attach("nobody", Events())


def test_a_hub_without_its_models_does_not_load(tmp_path: Path) -> None:
    hub = Hub(Settings(models=("nothing",), state_directory=tmp_path), Metrics())
    with pytest.raises(ModelError, match="no model 'nothing'"):
        hub.load()
    hub.close()


def test_two_models_side_by_side(toy: Path, tmp_path: Path) -> None:
    other = toy_model(tmp_path, name="other", steps=2)
    with running(toy, other, folder=tmp_path) as hub:
        sinks = {name: Events() for name in ("toy", "other")}
        for name, sink in sinks.items():
            session = hub.open(model=name, sample_rate=8000, sink=sink)
            session.feed(TINY)
            session.end()
        for sink in sinks.values():
            sink.wait("end")
            assert sink.of("final")[-1]["text"] == "AB"
        assert [model["name"] for model in hub.models()] == ["toy", "other"]


# -- one stream ------------------------------------------------------------------------------------------------------


def test_bad_input_takes_nothing(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        with pytest.raises(BadInput, match="3 bytes"):
            session.feed(b"abc")
        assert session.received == 0
        session.end()
        session.end()
        with pytest.raises(BadInput, match="ended"):
            session.feed(b"ab")
        with pytest.raises(BadInput, match="ended"):
            session.marker("m")
        assert sink.wait("end")["position"] == 0


def test_a_marker_comes_when_everything_before_it_is_decoded(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.marker("at once")
        assert sink.of("marker") == [{"type": "marker", "id": "at once", "position": 0, "seq": 1}]
        session.feed(level(1.0, 0.1).tobytes())
        session.marker("soon")
        session.feed(level(1.0, 0.0625).tobytes())
        session.marker("last")
        session.end()
        sink.wait("end")
        assert [(e["id"], e["position"]) for e in sink.of("marker")] == [("at once", 0), ("soon", 800), ("last", 1300)]
        assert [e["type"] for e in sink.got][-3:] == ["final", "marker", "end"]


def test_wait_refuses_when_full_and_tells_when_there_is_room(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, buffer_seconds=0.1) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        room = threading.Event()
        session.on_drained = room.set
        session.hold()  # no lane takes from it
        session.feed(bytes(2 * 800))
        assert session.full
        assert session.buffered_seconds == pytest.approx(0.1)
        with pytest.raises(Overflow):
            session.feed(b"ab")
        assert session.received == 800
        session.go_on()
        assert room.wait(PATIENCE)
        assert not session.full
        session.feed(b"ab")


def test_gap_drops_the_oldest_and_starts_anew(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, buffer_seconds=1.0) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink, overflow="gap")
        session.feed(np.concatenate([level(1.0, 0.2), level(0.0, 0.2)]).tobytes())
        session.marker("first")
        sink.wait("marker")
        session.hold()
        for _ in range(10):
            session.feed(level(0.0, 0.1).tobytes())
        session.feed(level(-1.0, 0.3).tobytes())
        session.go_on()
        session.end()
        sink.wait("end")
        gap = sink.of("gap")[0]
        assert gap["position"] == 3200 + gap["dropped"]
        assert gap["dropped"] == 8000 + 2400 - 4000
        finals = sink.of("final")
        assert [event["text"] for event in finals] == ["A", "B"]
        assert finals[0]["seq"] < gap["seq"] < finals[1]["seq"]
        assert finals[1]["start"] == pytest.approx(1.4, abs=0.05)  # in the stream's own time, over the gap
        assert count(hub, "dropped_seconds_total", model="toy") == pytest.approx(gap["dropped"] / 8000)


def test_another_rate_is_resampled(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=16000, sink=sink)
        feed(session, [speech("A BA", 16000).tobytes()])
        session.end()
        assert sink.wait("end")["position"] == 12800
        assert sink.of("final")[-1]["text"] == "ABA"


def test_a_sink_that_fails_costs_its_own_stream_only(toy: Path, tmp_path: Path) -> None:
    def broken(events: list[dict[str, object]]) -> None:
        raise RuntimeError("no ear")

    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        bad = hub.open(model=None, sample_rate=8000, sink=broken)
        good = hub.open(model=None, sample_rate=8000, sink=sink)
        for session in (bad, good):
            session.feed(TINY)
            session.end()
        sink.wait("end")
        again = Events()
        hub.attach(bad.id, again)
        again.wait("end")
        assert again.of("final")[-1]["text"] == "AB"


# -- who waits, who goes ---------------------------------------------------------------------------------------------


def test_a_newer_connection_takes_over(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        old, new = Events(), Events()
        session = hub.open(model=None, sample_rate=8000, sink=old)
        assert hub.attach(session.id, new) is session
        assert old.wait("error")["code"] == "taken_over"
        hub.detach(session, old)  # the old connection closes late: nothing happens
        session.feed(TINY)
        session.end()
        new.wait("end")
        assert not old.of("end")


def test_grace_and_store(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock, grace_seconds=60.0) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("AA").tobytes())
        hub.detach(session)
        hub.sweep()
        assert slots_used(hub) == 1
        clock.ahead = 61
        hub.sweep()
        assert slots_used(hub) == 0
        assert count(hub, "evictions_total", reason="grace") == 1
        sink = Events()
        again = hub.attach(session.id, sink)
        assert again.received == 3200
        again.feed(speech("B").tobytes())
        again.end()
        sink.wait("end")
        assert sink.of("final")[-1]["text"] == "AAB"
        assert count(hub, "resumes_total", source="store") == 1
        hub.discard(again)
        with pytest.raises(Refused):
            hub.attach(session.id, sink)


def test_the_silent_are_evicted(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, clock=clock, idle_seconds=300.0) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 1000).tobytes())
        session.marker("m")
        clock.ahead = 299
        hub.sweep()
        assert session.state == "active"
        clock.ahead = 301
        while session.busy:
            threading.Event().wait(0.001)
        hub.sweep()
        assert sink.wait("error")["code"] == "idle_timeout"
        assert slots_used(hub) == 0
        assert count(hub, "evictions_total", reason="idle_timeout") == 1


def test_events_that_fall_out_of_the_replay_are_counted(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.hub.REPLAY_EVENTS", 4)
    with running(toy, folder=tmp_path) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        hub.detach(session)
        for number in range(6):
            session.marker(str(number))
        sink = Events()
        hub.attach(session.id, sink)
        assert [event["id"] for event in sink.got] == ["2", "3", "4", "5"]
        assert count(hub, "dropped_events_total", model="toy") == 2


# -- the disk --------------------------------------------------------------------------------------------------------


def test_only_what_is_on_the_disk_is_acknowledged(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 600).tobytes())
        assert not sink.of("ack")
        hub.checkpoint()
        assert [event["position"] for event in sink.of("ack")] == [600]
        hub.checkpoint()
        assert len(sink.of("ack")) == 1  # nothing new, nothing said
        assert hub.store is not None
        hub.store.close()
        session.feed(samples(1, 600).tobytes())
        hub.checkpoint()
        assert len(sink.of("ack")) == 1
        assert count(hub, "store_errors_total", kind="put") == 1


def test_without_a_store_what_was_received_is_acknowledged(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, checkpoint_seconds=0.01) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 1000).tobytes())
        assert sink.wait("ack")["position"] in (0, 1000)


@pytest.mark.parametrize("kind", ["damaged", "other file"])
def test_a_snapshot_that_does_not_fit_is_refused_aloud(toy: Path, tmp_path: Path, kind: str) -> None:
    with running(toy, folder=tmp_path, store=True) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(samples(1, 1000).tobytes())
        hub.checkpoint()
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
    with running(model, folder=tmp_path, store=True) as hub:
        assert count(hub, "store_errors_total", kind="snapshot") == 1
        assert slots_used(hub) == 0
        with pytest.raises(Refused) as caught:
            hub.attach(session.id, Events())
        assert caught.value.reason == "snapshot"
        hub.open(model=None, sample_rate=8000, sink=Events())


def test_drain_runs_what_was_received_then_saves(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as hub:
        sinks = [Events() for _ in range(20)]
        for number, sink in enumerate(sinks):
            session = hub.open(model=None, sample_rate=8000, sink=sink)
            session.feed(samples(number, 32100).tobytes())
        assert hub.drain(PATIENCE) == 20
        for sink in sinks:
            assert sink.wait("restart")["position"] == 32100
            assert sink.got[-1]["type"] == "restart"
        assert count(hub, "chunks_total", model="toy") == 20 * (32100 // 320)
        refused(hub, "draining")
    with running(toy, folder=tmp_path, store=True) as hub:
        assert slots_used(hub) == 20


# -- everything at once ----------------------------------------------------------------------------------------------


def test_nothing_is_lost_while_everybody_comes_and_goes(toy: Path, tmp_path: Path) -> None:
    """Clients feed, vanish, come back, while checkpoints run; in the end every stream has heard all of its audio."""

    def client(hub: Hub, number: int) -> None:
        rng = np.random.default_rng(number)
        pcm = samples(number, 12000)
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        seen = {}
        while session.received < len(pcm):
            for _ in range(int(rng.integers(1, 6))):
                feed(session, [pcm[session.received : session.received + int(rng.integers(1, 900))].tobytes()])
            if rng.random() < 0.5:
                hub.detach(session, sink)
                seen |= {event["seq"]: event for event in sink.results}
                sink = Events()
                assert hub.attach(session.id, sink, after_seq=max(seen, default=0)) is session
        session.end()
        sink.wait("end")
        seen |= {event["seq"]: event for event in sink.results}
        expected = [e for e in reference(toy, pcm) if e["seq"] in seen or e["type"] != "partial"]
        outcomes[number] = [seen[key] for key in sorted(seen)] == expected
        hub.discard(session)

    outcomes: dict[int, bool] = {}
    with running(toy, folder=tmp_path, store=True, max_batch=4, checkpoint_seconds=0.02, buffer_seconds=0.3) as hub:
        clients = [threading.Thread(target=client, args=(hub, number)) for number in range(12)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(60)
        assert outcomes == dict.fromkeys(range(12), True)
        assert slots_used(hub) == 0
        assert hub.store is not None
        assert list(hub.store.live()) == []
        assert count(hub, "audio_seconds_total", model="toy") == pytest.approx(12 * (1.5 + 0.02))


def test_a_result_for_a_stream_that_left_is_dropped_and_counted(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, lanes=1) as hub:
        engine = hub._engines["toy"]
        entered, leave = threading.Event(), threading.Event()
        run = engine.model.run

        def slowly(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            entered.set()
            assert leave.wait(PATIENCE)
            return run(feeds)

        engine.model.run = slowly  # type: ignore[method-assign]
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.feed(speech("A").tobytes())
        assert entered.wait(PATIENCE)
        assert engine.stuck(0.0)
        hub.discard(session)
        assert hub.models()[0]["streams"] == 1  # not free before the chunk is back
        leave.set()
        after = Events()
        next_one = hub.open(model=None, sample_rate=8000, sink=after)
        next_one.feed(TINY)
        next_one.end()
        after.wait("end")
        assert after.of("final")[-1]["text"] == "AB"
        assert sink.got == []
        assert count(hub, "late_results_total", model="toy") == 1
        assert not engine.stuck(0.0)
        assert hub.stuck() is None


def test_the_page_has_every_number(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.feed(TINY)
        assert count(hub, "sessions", model="toy", state="active") == 1
        assert count(hub, "state_bytes", model="toy") == 160 + 64
        session.end()
        sink.wait("end")
        assert count(hub, "sessions", model="toy", state="ended") == 1
        assert count(hub, "state_bytes", model="toy") == 0
        assert count(hub, "steps_total", model="toy") == 42
        assert count(hub, "batch_size_count", model="toy") == 11
        assert count(hub, "lag_seconds_count", model="toy") == 10
        assert count(hub, "realtime_factor", model="toy") > 0


def test_a_long_buffer_is_not_written_but_not_acknowledged_either(toy: Path, tmp_path: Path) -> None:
    """A checkpoint holds a buffer's beginning; after a crash the client sends the rest, its markers and its end."""
    pcm = samples(3, 9000)
    with running(toy, folder=tmp_path, store=True) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.hold()
        session.feed(pcm[:500].tobytes())
        session.marker("early")
        session.feed(pcm[500:].tobytes())
        session.marker("late")
        session.end()
        hub.checkpoint()
        assert sink.of("ack")[-1]["position"] == 640
        hub.checkpoint()
        assert len(sink.of("ack")) == 1
    with running(toy, folder=tmp_path, store=True) as hub:
        sink = Events()
        session = hub.attach(session.id, sink)
        assert session.received == 640
        feed(session, [pcm[640:].tobytes()])
        session.marker("late")
        session.end()
        sink.wait("end")
        assert [(event["id"], event["position"]) for event in sink.of("marker")] == [("early", 500), ("late", 9000)]
        finals = [event for event in reference(toy, pcm) if event["type"] == "final"]
        assert [(e["text"], e["words"]) for e in sink.of("final")] == [(e["text"], e["words"]) for e in finals]


def test_a_client_that_comes_back_while_it_is_evicted_keeps_its_stream(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("A").tobytes())
        hub.detach(session)
        sink = Events()
        saved = hub._disk.save

        def meanwhile(*given: Any, **wishes: Any) -> Any:
            assert hub.attach(session.id, sink) is session
            return saved(*given, **wishes)

        hub._disk.save = meanwhile  # type: ignore[method-assign]
        clock.ahead = 3600
        hub.sweep()
        hub._disk.save = saved  # type: ignore[method-assign]
        assert count(hub, "evictions_total", reason="grace") == 0
        session.feed(speech("B").tobytes())
        session.end()
        sink.wait("end")
        assert sink.of("final")[-1]["text"] == "AB"


def test_a_stream_that_is_done_while_it_is_written_leaves_nothing_behind(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("A").tobytes())
        put = hub.store.put  # type: ignore[union-attr]

        def late(rows: Any) -> None:
            hub.discard(session)
            put(rows)

        hub.store.put = late  # type: ignore[union-attr, method-assign]
        hub.checkpoint()
        assert hub.store is not None
        assert hub.store.get(session.id) is None


def test_a_restored_stream_knows_where_it_stands(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(samples(1, 1000).tobytes())
        hub.drain(PATIENCE)
    with running(toy, folder=tmp_path, store=True) as hub:
        sink = Events()
        session = hub.attach(session.id, sink)
        session.marker("m")
        session.feed(samples(2, 280).tobytes())
        assert sink.wait("marker")["position"] == 1000


def test_a_marker_said_again_is_one_marker(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        sink = Events()
        session = hub.open(model=None, sample_rate=8000, sink=sink)
        session.marker("a")
        session.marker("a")
        session.feed(bytes(2))
        session.marker("a")
        session.marker("a")
        session.end()
        sink.wait("end")
        assert [event["position"] for event in sink.of("marker")] == [0, 1]


def test_markers_that_wait_are_bounded(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.feed(bytes(2))
        for number in range(256):
            session.marker(str(number))
        session.marker("255")  # said again: not a new one
        with pytest.raises(TooManyMarkers, match="256 markers wait"):
            session.marker("one more")
        session.feed(samples(1, 400).tobytes())
        session.end()


def test_a_restored_full_buffer_tells_when_to_go_on(toy: Path, tmp_path: Path) -> None:
    limits = Limits(buffered_seconds=0.5)
    with running(toy, folder=tmp_path, buffer_seconds=0.5) as hub:
        session = hub.open(model=None, sample_rate=8000, sink=Events())
        session.hold()
        session.feed(samples(1, 8000).tobytes())
        assert session.full
        saved = session.snapshot()
    model = Model.load(toy)
    engine = Engine(model, create(model.manifest), Metrics().model("toy"))  # its lanes wait until we listen
    restored = Session("again", engine, sample_rate=8000, limits=limits, snapshot=saved)
    drained = threading.Event()
    restored.on_drained = drained.set
    assert restored.full
    engine.start()
    try:
        assert drained.wait(PATIENCE)
    finally:
        engine.close()
