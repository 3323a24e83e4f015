"""The registry: who comes in, who waits, who is thrown out; each with its reason and its count."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from streamer.engine.model import Model, ModelError
from streamer.likeness import KINDS
from streamer.metrics import Metrics
from streamer.refusals import Refused
from streamer.settings import Settings
from streamer.streams.registry import Registry
from tests.engine.support import Clock, Events, count, feed, reference, refused, running, slots_used
from tests.toys import samples, speech, toy_model

TINY = speech("AB").tobytes()


def test_what_can_not_be_served_is_refused_with_a_reason(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, capacity=2) as registry:
        assert "toy" in refused(registry, "unknown_model", model="other").message
        refused(registry, "options", options={"no_such": 1})
        refused(registry, "options", overflow="sometimes")
        refused(registry, "rate", sample_rate=1)
        first = registry.open(model="toy", sample_rate=8000, sink=Events(), stream="mine")
        refused(registry, "duplicate", stream="mine")
        registry.open(model="toy", sample_rate=8000, sink=Events())
        full = refused(registry, "capacity")
        assert full.retry_after is not None
        registry.discard(first)
        registry.open(model="toy", sample_rate=8000, sink=Events())
        with pytest.raises(Refused, match="no stream 'nobody'"):
            registry.attach("nobody", Events())


def test_a_hub_without_its_models_does_not_load(tmp_path: Path) -> None:
    registry = Registry(Settings(models=("nothing",), state_directory=tmp_path), Metrics())
    with pytest.raises(ModelError, match="no model 'nothing'"):
        registry.load()
    registry.close()


def test_the_first_stream_of_a_wrong_format_is_an_increase(toy: Path, tmp_path: Path) -> None:
    """An alert sees none from a sample that was not there."""
    with running(toy, folder=tmp_path) as registry:
        for kind in KINDS:
            assert count(registry, "suspected_streams_total", format=kind) == 0


def test_state_beyond_its_bound_is_refused_before_it_is_taken(toy: Path, tmp_path: Path) -> None:
    each = Model.load(toy).manifest.state_bytes
    wishes = {"models": (str(toy),), "state_directory": tmp_path, "capacity": 11, "max_state_bytes": 10 * each}
    registry = Registry(Settings(**wishes), Metrics())
    with pytest.raises(
        ModelError, match=r"lower capacity to 10, or allow more \(settings capacity and max_state_bytes"
    ):
        registry.load()
    registry.close()


def test_two_models_side_by_side(toy: Path, tmp_path: Path) -> None:
    other = toy_model(tmp_path, name="other", steps=2)
    with running(toy, other, folder=tmp_path) as registry:
        sinks = {name: Events() for name in ("toy", "other")}
        for name, sink in sinks.items():
            session = registry.open(model=name, sample_rate=8000, sink=sink)
            session.feed(TINY)
            session.end()
        for sink in sinks.values():
            sink.wait("end")
            assert sink.of("final")[-1]["text"] == "AB"
        assert [model["name"] for model in registry.models()] == ["toy", "other"]


def test_grace_and_store(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock, grace_seconds=60.0) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        session.feed(speech("AA").tobytes())
        registry.detach(session)
        registry.sweep()
        assert slots_used(registry) == 1
        clock.ahead = 61
        registry.sweep()
        assert slots_used(registry) == 0
        assert count(registry, "evictions_total", reason="grace") == 1
        sink = Events()
        again = registry.attach(session.id, sink)
        assert again.received == 3200
        again.feed(speech("B").tobytes())
        again.end()
        sink.wait("end")
        assert sink.of("final")[-1]["text"] == "AAB"
        assert count(registry, "resumes_total", source="store") == 1
        registry.discard(again)
        with pytest.raises(Refused):
            registry.attach(session.id, sink)


def test_a_stream_that_is_done_is_forgotten_not_evicted(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock, grace_seconds=60.0) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(TINY)
        session.end()
        sink.wait("end")
        registry.detach(session)
        again = Events()
        assert registry.attach(session.id, again) is session  # its end may have been lost on the way
        again.wait("end")
        registry.detach(session)
        clock.ahead = 61
        registry.sweep()
        assert count(registry, "sessions", model="toy", state="ended") == 0
        assert count(registry, "evictions_total", reason="grace") == 0
        with pytest.raises(Refused, match="no stream"):
            registry.attach(session.id, again)


def test_the_silent_are_evicted(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, clock=clock, idle_seconds=300.0) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(samples(1, 1000).tobytes())
        session.marker("m")
        clock.ahead = 299
        registry.sweep()
        assert session.state == "active"
        clock.ahead = 301
        while session.busy:
            threading.Event().wait(0.001)
        registry.sweep()
        assert sink.wait("error")["code"] == "idle_timeout"
        assert slots_used(registry) == 0
        assert count(registry, "evictions_total", reason="idle_timeout") == 1


def test_nothing_is_lost_while_everybody_comes_and_goes(toy: Path, tmp_path: Path) -> None:
    """Clients feed, vanish, come back, while checkpoints run; in the end every stream has heard all of its audio."""

    def client(registry: Registry, number: int) -> None:
        rng = np.random.default_rng(number)
        pcm = samples(number, 12000)
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        seen = {}
        while session.received < len(pcm):
            for _ in range(int(rng.integers(1, 6))):
                feed(session, [pcm[session.received : session.received + int(rng.integers(1, 900))].tobytes()])
            if rng.random() < 0.5:
                registry.detach(session, sink)
                seen |= {event["seq"]: event for event in sink.results}
                sink = Events()
                assert registry.attach(session.id, sink, after_seq=max(seen, default=0)) is session
        session.end()
        sink.wait("end")
        seen |= {event["seq"]: event for event in sink.results}
        expected = [e for e in reference(toy, pcm) if e["seq"] in seen or e["type"] != "partial"]
        outcomes[number] = [seen[key] for key in sorted(seen)] == expected
        registry.discard(session)

    outcomes: dict[int, bool] = {}
    with running(
        toy, folder=tmp_path, store=True, max_batch=4, checkpoint_seconds=0.02, buffer_seconds=0.3
    ) as registry:
        clients = [threading.Thread(target=client, args=(registry, number)) for number in range(12)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(60)
        assert outcomes == dict.fromkeys(range(12), True)
        assert slots_used(registry) == 0
        assert registry.store is not None
        registry.checkpoint()  # one that was under way as the last stream left looks once more after it has written
        assert list(registry.store.live()) == []
        assert count(registry, "audio_seconds_total", model="toy") == pytest.approx(12 * (1.5 + 0.02))


def test_the_page_has_every_number(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, max_replay_events=7) as registry:
        assert count(registry, "limit", name="max_replay_events") == 7
        assert count(registry, "limit", name="buffer_seconds") == 10
        assert not registry.metrics.registry.get_sample_value("streamer_limit", {"name": "port"})
        (build,) = (m for m in registry.metrics.registry.collect() if m.name == "streamer_build")
        assert set(build.samples[0].labels) == {"version", "python", "onnxruntime"}
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink)
        session.feed(TINY)
        assert count(registry, "sessions", model="toy", state="active") == 1
        assert count(registry, "state_bytes", model="toy") == 160 + 64
        session.end()
        sink.wait("end")
        assert count(registry, "sessions", model="toy", state="ended") == 1
        assert count(registry, "state_bytes", model="toy") == 0
        assert count(registry, "steps_total", model="toy") == 42
        assert count(registry, "batch_size_count", model="toy") == 11
        assert count(registry, "lag_seconds_count", model="toy") == 10
        assert count(registry, "realtime_factor", model="toy") > 0
