"""Finals that are heard once more: in order, in time or as they were, and whatever becomes of one, of no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.streams.exchange import Exchange
from streamer.streams.registry import Registry
from streamer.streams.revision import Heard
from streamer.streams.session import Session
from tests.engine.support import PATIENCE, Event, Events, count, feed, pieces, refused, running
from tests.poison import among
from tests.streams.ear import OPTIONS, POISON, Ear, talk
from tests.toys import level, speech, toy_model


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("toy"), options=OPTIONS)


@pytest.fixture
def ear() -> Iterator[Ear]:
    found = Ear()
    yield found
    found.open.set()


def opened(registry: Registry, sink: Any = None, **wishes: Any) -> tuple[Session, Events]:
    sink = sink or Events()
    return registry.open(model=None, sample_rate=8000, sink=sink, **wishes), sink


def run(registry: Registry, pcm: np.ndarray, cuts: list[int] | None = None, **wishes: Any) -> Events:
    session, sink = opened(registry, **wishes)
    feed(session, pieces(pcm, cuts or []))
    session.end()
    sink.wait("end")
    return sink


def numbered(events: list[Event], *types: str) -> list[Event]:
    return [event for event in events if "seq" in event and event["type"] in types]


def texts(events: Events) -> list[tuple[str, Any]]:
    return [(event["text"], event.get("revised")) for event in events.of("final")]


def until(call: Any) -> None:
    for _ in range(int(PATIENCE * 1000)):
        if call():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come to that")


def test_finals_are_heard_again(toy: Path, tmp_path: Path, ear: Ear) -> None:
    pcm = talk("AB", "BA")
    with running(toy, folder=tmp_path) as registry:
        before = run(registry, pcm)
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        after = run(registry, pcm)
        assert count(registry, "second_pass_finals_total", outcome="revised") == 2
    assert texts(before) == [("AB", None), ("BA", None)]
    assert texts(after) == [("Alpha, Beta.", True), ("Beta. Alpha,", True)]
    words = [word for event in after.of("final") for word in event["words"]]
    assert [(word["word"], word["written"]) for word in words[:2]] == [("alpha", "Alpha,"), ("beta", "Beta.")]
    assert all(a["end"] <= b["start"] for a, b in pairwise(words))
    assert [(event["start"], event["end"]) for event in after.of("final")] == [(0.0, 0.3), (1.0, 1.3)]


def test_numbers_are_those_of_a_stream_without_a_second_hearing(toy: Path, tmp_path: Path, ear: Ear) -> None:
    pcm = talk("AB", "BA", "A")
    with running(toy, folder=tmp_path) as registry:
        before = {event["seq"]: event["type"] for event in run(registry, pcm).results}
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        after = {event["seq"]: event["type"] for event in run(registry, pcm).results}
    assert after.items() <= before.items()  # partials that were overtaken while they waited are left out
    assert {k: v for k, v in after.items() if v != "partial"} == {k: v for k, v in before.items() if v != "partial"}


def test_any_pieces_give_the_same_finals(toy: Path, tmp_path: Path, ear: Ear) -> None:
    pcm = talk("ABBA", "B", "AAB", quiet=0.5)
    rng = np.random.default_rng(3)
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        whole = run(registry, pcm).of("final")
        for _ in range(4):
            cuts = rng.integers(0, len(pcm), 40).tolist()
            assert run(registry, pcm, cuts).of("final") == whole


def test_partials_go_on_while_a_final_waits(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        session, sink = opened(registry)
        session.feed(talk("AB").tobytes())
        until(lambda: session._delivery.held)
        session.marker("m")
        session.feed(speech("B", seconds=0.2).tobytes())
        until(lambda: sink.of("partial")[-1]["text"] == "AB B")
        shown = sink.of("partial")[-1]
        assert "seq" not in shown
        assert [word["word"] for word in shown["words"]] == ["AB", "B"]
        assert not sink.of("final", "marker")
        ear.open.set()
        sink.wait("final")
        session.end()
        sink.wait("end")
        kinds = [event["type"] for event in sink.results]
        assert [kind for kind in kinds if kind != "partial"] == ["final", "marker", "final", "end"]
        numbers = [event["seq"] for event in sink.results]
        assert numbers == sorted(numbers)


def test_what_is_said_now_is_shown_however_many_finals_wait(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        session, sink = opened(registry)
        pcm = talk(*"AABB" * 3)
        for at in range(0, len(pcm), 800):
            session.feed(pcm[at : at + 800].tobytes())
            until(lambda: not session._intake.ready and not session._intake.in_flight)
        assert session._delivery.held == 8
        assert count(registry, "second_pass_finals_total", outcome="full") == 4
        ear.open.set()
        session.end()
        sink.wait("end")
        assert [revised for _, revised in texts(sink)] == [True] * 8 + [False] * 4


def test_a_final_that_takes_too_long_stands_as_it_was(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear, revise_seconds=0.05) as registry:
        session, sink = opened(registry)
        session.feed(talk("AB").tobytes())
        sink.wait("final")
        session.end()
        sink.wait("end")
        assert texts(sink) == [("AB", False)]
        assert count(registry, "second_pass_finals_total", outcome="late") == 1
        ear.open.set()
        until(lambda: ear.heard)  # it comes back at last, and nobody wants it
        assert run(registry, talk("B")).of("final")[-1]["text"] in ("B", "Beta.")
    assert [event["type"] for event in sink.got].count("end") == 1


@pytest.mark.parametrize(("setting", "value"), [("max_waiting_finals", 1), ("max_waiting_final_seconds", 0.6)])
def test_a_full_queue_takes_no_more(toy: Path, tmp_path: Path, ear: Ear, setting: str, value: float) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear, **{setting: value}) as registry:
        streams = [opened(registry) for _ in range(4)]
        assert registry._reviser is not None
        for at, (session, sink) in enumerate(streams):
            session.feed(talk("A").tobytes())
            session.end()
            until(lambda session=session, sink=sink: session._delivery.held or texts(sink))
            if at == 0:  # it is being heard
                until(lambda: not registry._reviser.waiting)
        for _, sink in streams[2:]:
            sink.wait("end")
            assert texts(sink) == [("A", False)]
        assert registry.metrics.registry.get_sample_value("streamer_second_pass_waiting") == 1
        ear.open.set()
        for _, sink in streams[:2]:
            sink.wait("end")
            assert texts(sink) == [("Alpha,", True)]


def test_a_file_waits_for_its_finals(toy: Path, tmp_path: Path, ear: Ear) -> None:
    with running(toy, folder=tmp_path, recogniser=ear, max_waiting_finals=2, buffer_seconds=60.0) as registry:
        sink = run(registry, talk(*["AB", "B", "A"] * 5))
    assert [revised for _, revised in texts(sink)] == [True] * 15


def test_a_sound_that_can_not_be_heard_costs_its_own_final_alone(toy: Path, tmp_path: Path, ear: Ear) -> None:
    poisoned = talk("AB")
    poisoned[500:510] = POISON + 1000

    def finals(members: list[np.ndarray]) -> list[list[tuple[str, Any]]]:
        with running(toy, folder=tmp_path, recogniser=ear) as registry:
            streams = [opened(registry) for _ in members]
            for (session, _), pcm in zip(streams, members, strict=True):
                feed(session, [pcm.tobytes()])
                session.end()
            for _, sink in streams:
                sink.wait("end")
            return [texts(sink) for _, sink in streams]

    for alone, beside in among([talk("A", "B"), talk("BA"), talk("B")], poisoned, finals):
        assert beside == alone
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        assert texts(run(registry, np.concatenate([poisoned, talk("B")]))) == [("AB", False), ("Beta.", True)]
        assert count(registry, "second_pass_finals_total", outcome="failed") == 1


class Hasty(Ear):
    """Stops after the first pause, as Whisper may."""

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        words = super().hear(sound).words
        upto = next((i for i, (a, b) in enumerate(pairwise(words), 1) if b.start - a.end > 0.3), len(words))
        return Heard(words[:upto], logp=-0.2)


def test_a_final_is_heard_with_what_was_said_before_and_else_alone(toy: Path, tmp_path: Path, ear: Ear) -> None:
    pcm = talk("AB", "BA", quiet=0.8)
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        run(registry, pcm)
    with running(toy, folder=tmp_path, recogniser=(hasty := Hasty())) as registry:
        sink = run(registry, pcm)
    assert texts(sink) == [("Alpha, Beta.", True), ("Beta. Alpha,", True)]
    first, both = ear.heard
    assert both > first + 8000
    assert hasty.heard[:2] == [first, both]
    assert hasty.heard[2] < both - 8000 // 2
    assert [(event["start"], event["end"]) for event in sink.of("final")] == [(0.0, 0.3), (1.2, 1.5)]


def test_a_pause_before_the_first_final_is_no_context(toy: Path, tmp_path: Path, ear: Ear) -> None:
    """Whisper takes a long pause for a part of the first word."""
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        assert texts(run(registry, talk("AB"))) == [("Alpha, Beta.", True)]
        late = run(registry, np.concatenate([level(0.0, 4.0).astype(np.int16), talk("AB")]))
    assert texts(late) == [("Alpha, Beta.", True)]
    at_once, later = ear.heard
    assert later <= at_once + 1.3 * 8000 + 320


def test_what_was_invented_where_nobody_speaks_is_taken_back(toy: Path, tmp_path: Path, ear: Ear) -> None:
    """A constant level is a word for the toy, and no sound for anybody."""
    pcm = np.concatenate([level(1.0, 0.4), level(0.0, 0.6)])
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        sink = run(registry, pcm)
        assert count(registry, "second_pass_finals_total", outcome="silent") == 1
    assert texts(sink) == [("", True)]
    assert not ear.heard


def test_a_final_longer_than_what_is_kept_stands_as_it_was(toy: Path, tmp_path: Path, ear: Ear) -> None:
    with running(toy, folder=tmp_path, recogniser=ear, max_final_seconds=2.0, buffer_seconds=60.0) as registry:
        sink = run(registry, talk("AB" * 20, "A"))
        assert count(registry, "second_pass_finals_total", outcome="long") == 1
        session, _ = opened(registry)
        session.feed(talk(" ", quiet=20.0).tobytes())
        until(lambda: not session.busy)
        assert session._hearing is not None
        assert sum(map(len, session._hearing._chunks)) <= 2.0 * 8000 + 320
    assert texts(sink) == [("AB" * 20, False), ("Alpha,", True)]


def test_an_utterance_that_was_cut_is_heard_in_two_parts(toy: Path, tmp_path: Path, ear: Ear) -> None:
    options = {"endpoint": {"length": 1.0}}
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        sink = run(registry, talk("AB" * 6), options=options)
    said = " ".join(text for text, _ in texts(sink)).split()
    assert len(texts(sink)) > 1
    assert said == ["Alpha,", "Beta."] * 6


# -- who wants it ----------------------------------------------------------------------------------------------------


def test_a_stream_may_do_without(toy: Path, tmp_path: Path, ear: Ear) -> None:
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        assert texts(run(registry, talk("AB"), options={"revise": False})) == [("AB", None)]
        assert texts(run(registry, talk("AB"), options={"revise": True})) == [("Alpha, Beta.", True)]
        assert texts(run(registry, talk("AB"), options={"words": False})) == [("Alpha, Beta.", True)]


def test_who_asks_for_what_is_not_there_is_refused(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        assert "setting revise" in refused(registry, "options", options={"revise": True}).message
        assert texts(run(registry, talk("AB"), options={"revise": False})) == [("AB", None)]


def test_a_request_is_answered_with_the_final_that_was_heard_again(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        done = threading.Event()
        exchange = Exchange(done.set)
        session = registry.open(model=None, sample_rate=8000, sink=exchange, key="k")
        exchange.send(session, talk("AB"))
        until(lambda: session._delivery.held)
        assert not done.wait(0.05)
        ear.open.set()
        assert done.wait(PATIENCE)
        assert [event["text"] for event in exchange.events if event["type"] == "final"] == ["Alpha, Beta."]


# -- asleep ----------------------------------------------------------------------------------------------------------


def test_a_stream_that_slept_hears_the_same(toy: Path, tmp_path: Path, ear: Ear) -> None:
    pcm = talk("AB", "BBA", "A")
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        whole = numbered(run(registry, pcm).results, "final", "end")
    for at in (900, 4000, 11000, len(pcm) - 2000):
        folder = tmp_path / str(at)
        folder.mkdir()
        with running(toy, folder=folder, store=True, recogniser=ear) as registry:
            session, first = opened(registry, key="k")
            session.feed(pcm[:at].tobytes())
            until(lambda session=session: not session.busy)
            registry.detach(session)
            assert registry.keeper.evict(session, "grace")
        with running(toy, folder=folder, store=True, recogniser=ear) as registry:
            second = Events()
            session = registry.attach("k", second, after_seq=first.results[-1]["seq"] if first.results else 0)
            session.feed(pcm[at:].tobytes())
            session.end()
            second.wait("end")
        assert numbered([*first.results, *second.results], "final", "end") == whole


def test_a_planned_restart_takes_the_open_utterance_along(toy: Path, tmp_path: Path, ear: Ear) -> None:
    """Even where nothing changed since a checkpoint that left the sound out."""
    pcm = talk("ABBA")
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        session, _ = opened(registry, key="k")
        session.feed(pcm[:3200].tobytes())
        until(lambda: not session.busy)
        registry.keeper.checkpoint()
        registry.drain(PATIENCE)
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        sink = Events()
        session = registry.attach("k", sink)
        session.feed(pcm[3200:].tobytes())
        session.end()
        sink.wait("end")
        assert texts(sink) == [("Alpha, Beta. Beta. Alpha,", True)]


def test_after_a_crash_the_open_final_stands_as_it_was(toy: Path, tmp_path: Path, ear: Ear) -> None:
    """What a checkpoint leaves out is the sound: nothing else is lost, and nothing is said twice."""
    pcm = talk("AB", "BA")
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        session, _ = opened(registry, key="k")
        session.feed(pcm[:1600].tobytes())
        until(lambda: not session.busy)
        registry.keeper.checkpoint()
        registry.store = None  # killed
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        sink = Events()
        session = registry.attach("k", sink)
        session.feed(pcm[session.received :].tobytes())
        session.end()
        sink.wait("end")
        assert texts(sink) == [("AB", False), ("Beta. Alpha,", True)]
        assert count(registry, "second_pass_finals_total", outcome="lost") == 1


@pytest.mark.long
def test_a_final_that_waits_is_in_the_snapshot_as_it_was(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    pcm = talk("AB", "B")
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        session, first = opened(registry, key="k")
        session.feed(pcm.tobytes())
        until(lambda: session._delivery.held == 2)
        session.marker("m")
        registry.keeper.checkpoint()
        seen = first.results[-1]["seq"]
        assert not first.of("final", "marker")
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        sink = Events()
        session = registry.attach("k", sink, after_seq=seen)
        assert texts(sink) == [("AB", False), ("B", False)]
        session.feed(pcm[session.received :].tobytes())
        session.marker("m")
        session.end()
        sink.wait("end")
        assert [event["type"] for event in numbered(sink.results, "final", "marker", "end")] == [
            "final",
            "final",
            "marker",
            "end",
        ]


def test_who_has_seen_a_final_does_not_get_it_again_as_it_was(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        session, first = opened(registry, key="k")
        session.feed(talk("AB").tobytes())
        until(lambda: session._delivery.held)
        registry.keeper.checkpoint()
        ear.open.set()
        final = first.wait("final")
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        sink = Events()
        session = registry.attach("k", sink, after_seq=final["seq"])
        session.end()
        assert sink.wait("end")["seq"] == final["seq"] + 1
        assert not sink.of("final")


def test_a_drain_waits_for_finals_and_gives_up_those_that_do_not_come(toy: Path, tmp_path: Path, ear: Ear) -> None:
    with running(toy, folder=tmp_path, store=True, recogniser=ear) as registry:
        ear.open.clear()
        (session, quick), (other, slow) = opened(registry, key="k"), opened(registry, key="l")
        session.feed(talk("AB").tobytes())
        until(lambda: session._delivery.held)
        threading.Timer(0.05, ear.open.set).start()
        registry.drain(PATIENCE)
        assert texts(quick) == [("Alpha, Beta.", True)]
        other.feed(talk("B").tobytes())
        slow.wait("final")
        assert texts(slow) == [("B", False)]
        assert count(registry, "second_pass_finals_total", outcome="stopped") == 1


@pytest.mark.long
def test_a_stream_that_fails_gives_out_what_waited(tmp_path: Path, ear: Ear) -> None:
    model = toy_model(tmp_path, options=OPTIONS, fails_on=32767)
    ear.open.clear()
    with running(model, folder=tmp_path, recogniser=ear) as registry:
        session, sink = opened(registry)
        session.feed(talk("AB").tobytes())
        until(lambda: session._delivery.held)
        session.feed(np.full(800, 32767, np.int16).tobytes())
        sink.wait("error")
    assert [event["type"] for event in sink.got if event["type"] != "partial"] == ["final", "error"]
    assert texts(sink) == [("AB", False)]


def test_a_stream_that_is_left_takes_its_finals_with_it(toy: Path, tmp_path: Path, ear: Ear) -> None:
    ear.open.clear()
    with running(toy, folder=tmp_path, recogniser=ear) as registry:
        (first, _), (session, sink) = opened(registry), opened(registry)
        first.feed(talk("A").tobytes())
        until(lambda: first._delivery.held)
        session.feed(talk("AB").tobytes())
        until(lambda: session._delivery.held)
        registry.discard(session)
        assert registry._reviser is not None
        until(lambda: not registry._reviser.waiting)
        ear.open.set()
        until(lambda: not first._delivery.held)
        assert len(ear.heard) == 1
        assert not sink.of("final")
