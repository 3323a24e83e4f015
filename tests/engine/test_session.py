"""One stream: what goes in, what comes out in which order, and what happens when it is full or its client is gone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from streamer.engine.engine import Engine
from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.refusals import BadInput, Overflow, TooManyMarkers
from streamer.streams.intake import Limits
from streamer.streams.session import Session
from streamer.tasks import create
from tests.engine.support import PATIENCE, Events, count, feed, reference, running
from tests.toys import level, samples, speech

TINY = speech("AB").tobytes()


def test_bad_input_takes_nothing(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
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
    with running(toy, folder=tmp_path) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
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


def test_a_marker_said_again_is_one_marker(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.marker("a")
        session.marker("a")
        session.feed(bytes(2))
        session.marker("a")
        session.marker("a")
        session.end()
        sink.wait("end")
        assert [event["position"] for event in sink.of("marker")] == [0, 1]


def test_markers_that_wait_are_bounded(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, max_waiting_markers=20) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(bytes(2))
        for number in range(20):
            session.marker(str(number))
        session.marker("19")  # said again: not a new one
        with pytest.raises(TooManyMarkers, match="20 markers wait"):
            session.marker("one more")
        session.feed(samples(1, 400).tobytes())
        session.end()


def test_wait_refuses_when_full_and_tells_when_there_is_room(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, buffer_seconds=0.1) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
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


def test_a_restored_full_buffer_tells_when_to_go_on(toy: Path, tmp_path: Path) -> None:
    limits = Limits(buffered_seconds=0.5)
    with running(toy, folder=tmp_path, buffer_seconds=0.5) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
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


def test_a_resampled_stream_may_end_while_it_is_full(toy: Path, tmp_path: Path) -> None:
    """What the resampler held back is no new audio: it goes into a full buffer, too."""
    pcm = samples(1, 16000)
    with running(toy, folder=tmp_path, buffer_seconds=0.2) as registry:
        whole = Events()
        session = registry.open(model=None, sample_rate=16000, sink=whole)
        session.hold()
        session.feed(pcm.tobytes())
        assert session.full
        session.end()
        session.go_on()
        assert whole.wait("end", "error") == {"type": "end", "position": 16000, "seq": session.seq}
        steps = -(-16000 // 2 // 80) + 2
        assert count(registry, "steps_total", model="toy") == steps


def test_gap_drops_the_oldest_and_starts_anew(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, buffer_seconds=1.0) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, overflow="gap")
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
        assert count(registry, "dropped_seconds_total", model="toy") == pytest.approx(gap["dropped"] / 8000)


def test_behind_a_gap_nothing_of_what_was_before_is_left(toy: Path, tmp_path: Path) -> None:
    pcm = samples(4, 16000)
    with running(toy, folder=tmp_path, buffer_seconds=0.5) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, overflow="gap")
        feed(session, [pcm[:3210].tobytes()])
        while session.busy:
            threading.Event().wait(0.001)
        session.hold()
        session.feed(pcm[3210:].tobytes())
        session.go_on()
        session.end()
        sink.wait("end")
        (gap,) = sink.of("gap")
        behind = [event for event in sink.results if event["seq"] > gap["seq"]]
        alone = reference(toy, pcm[gap["position"] :])
        assert [(event["type"], event.get("text")) for event in behind] == [
            (event["type"], event.get("text")) for event in alone
        ]
        late = gap["position"] / 8000
        for event, other in zip(behind[:-1], alone[:-1], strict=True):
            starts = [word["start"] + late for word in other["words"]]
            assert [word["start"] for word in event["words"]] == pytest.approx(starts, abs=2e-3)
            assert [word["confidence"] for word in event["words"]] == [word["confidence"] for word in other["words"]]


def test_another_rate_is_resampled(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=16000, sink=sink)
        feed(session, [speech("A BA", 16000).tobytes()])
        session.end()
        assert sink.wait("end")["position"] == 12800
        assert sink.of("final")[-1]["text"] == "ABA"


def test_a_sink_that_fails_costs_its_own_stream_only(toy: Path, tmp_path: Path) -> None:
    def broken(events: list[dict[str, object]]) -> None:
        raise RuntimeError("no ear")

    with running(toy, folder=tmp_path) as registry:
        sink = Events()
        bad = registry.open(model=None, sample_rate=8000, sink=broken)
        good = registry.open(model=None, sample_rate=8000, sink=sink)
        for session in (bad, good):
            session.feed(TINY)
            session.end()
        sink.wait("end")
        again = Events()
        registry.attach(bad.id, again)
        again.wait("end")
        assert again.of("final")[-1]["text"] == "AB"


def test_a_newer_connection_takes_over(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        old, new = Events(), Events()
        session = registry.open(model=None, sample_rate=8000, sink=old)
        assert registry.attach(session.id, new) is session
        assert old.wait("error")["code"] == "taken_over"
        registry.detach(session, old)  # the old connection closes late: nothing happens
        session.feed(TINY)
        session.end()
        new.wait("end")
        assert not old.of("end")


def test_who_comes_back_gets_what_it_has_not_seen_and_no_more(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        for number in range(1, 6):
            session.marker(str(number))
        for seen in range(6):
            sink = Events()
            registry.attach(session.id, sink, after_seq=seen)
            assert [event["seq"] for event in sink.got] == list(range(seen + 1, 6))


def test_events_that_fall_out_of_the_replay_are_counted(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, max_replay_events=4) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        registry.detach(session)
        for number in range(6):
            session.marker(str(number))
        sink = Events()
        registry.attach(session.id, sink)
        assert [event["id"] for event in sink.got] == ["2", "3", "4", "5"]
        assert count(registry, "dropped_events_total", model="toy") == 2


def test_a_result_for_a_stream_that_left_is_dropped_and_counted(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, lanes=1) as registry:
        engine = registry._engines["toy"]
        entered, leave = threading.Event(), threading.Event()
        run = engine.model.run

        def slowly(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            entered.set()
            assert leave.wait(PATIENCE)
            return run(feeds)

        engine.model.run = slowly  # type: ignore[method-assign]
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(speech("A").tobytes())
        assert entered.wait(PATIENCE)
        assert engine.stuck(0.0)
        registry.discard(session)
        assert registry.models()[0]["streams"] == 1  # not free before the chunk is back
        leave.set()
        after = Events()
        next_one = registry.open(model=None, sample_rate=8000, sink=after)
        next_one.feed(TINY)
        next_one.end()
        after.wait("end")
        assert after.of("final")[-1]["text"] == "AB"
        assert sink.got == []
        assert count(registry, "late_results_total", model="toy") == 1
        assert not engine.stuck(0.0)
        assert registry.stuck() is None


@pytest.mark.parametrize("how", ["end", "fail"])
def test_a_slot_is_free_before_its_stream_is_told_that_it_is_over(trap: Path, tmp_path: Path, how: str) -> None:
    """Whoever is told may open the next stream: with one slot, a hundred streams one after the other."""
    data = TINY if how == "end" else np.full(800, 32767, np.int16).tobytes()
    with running(trap, folder=tmp_path, capacity=1, lanes=2) as registry:
        for _ in range(100):
            sink = Events()
            session = registry.open(model=None, sample_rate=8000, sink=sink)
            session.feed(data)
            session.end()
            sink.wait("end", "error")
        assert count(registry, "refusals_total", reason="capacity") == 0


def test_a_stream_that_waits_for_its_slot_is_saved_with_its_end(toy: Path, tmp_path: Path) -> None:
    """All is run, the lane is still at it: a snapshot has the end in it, or is not made."""
    with running(toy, folder=tmp_path) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        engine = registry._engines["toy"]
        close, released = engine.close_stream, session.released
        engine.close_stream = lambda stream: close(stream) and False  # type: ignore[method-assign]
        session.released = lambda: None  # type: ignore[method-assign]
        session.feed(TINY)
        session.end()
        while session.state != "ending":
            threading.Event().wait(0.001)
        assert session.busy
        with pytest.raises(TimeoutError):
            session.snapshot(0.01)
        released()
        saved = session.snapshot(PATIENCE)
        assert (saved.finished, saved.events[-1]["type"]) == (True, "end")
