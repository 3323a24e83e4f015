"""Who is let in when the machine is full, and who comes first then."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from streamer.engine.engine import Engine
from streamer.refusals import Refused
from streamer.streams.headroom import RETRIES
from streamer.streams.registry import Registry
from streamer.streams.session import Session
from tests.engine.support import Events, count, refused, running, wait_until
from tests.toys import toy_model

CHUNK = 320  # samples of the toy's chunk, 40 ms
SILENCE = np.zeros(CHUNK, "<i2")


def opened(registry: Registry, **wishes: object) -> Session:
    return registry.open(**{"model": None, "sample_rate": 8000, "sink": Events(), **wishes})  # type: ignore[arg-type]


def costs(engine: Engine, seconds: float) -> None:
    """Each stream of a batch takes so long, on one lane."""
    engine.load.parallel = 1
    engine.load._sums = (0.0,) * 5
    engine.load.expect([(1, seconds), (64, 64 * seconds)])


def test_a_machine_that_is_full_as_measured_refuses_more_and_says_when_to_come_again(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, max_load=1e-9) as registry:
        opened(registry)  # who is alone is let in
        now = monotonic()
        registry._admission.headroom._clock = lambda: now
        errors = [refused(registry, "overload") for _ in range(10)]
        first = errors[0].retry_after
        assert first is not None
        apart = [(error.retry_after or 0.0) - first for error in errors]
        assert apart == pytest.approx([i / RETRIES for i in range(10)])  # they do not all come back at once
        assert "max_load" in errors[0].message


def test_streams_that_begin_together_are_measured_before_more_come(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, max_load=1.0) as registry:
        costs(registry.engine(None), 0.0079)  # each a fifth of the machine
        first = opened(registry)  # one may always try
        assert "just begun" in refused(registry, "overload").message
        for _ in range(3):
            first.begun -= 60
            first = opened(registry)
        first.begun -= 60
        assert len(registry._table.all()) == 4
        opened(registry).begun -= 60
        assert "max_load" in refused(registry, "overload").message


def test_late_results_close_the_door_until_they_come_in_time(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, overload_seconds=0.001) as registry:
        engine = registry.engine(None)
        assert engine.load.allowed == 0.001
        sink = Events()
        session = opened(registry, sink=sink)
        session.feed_rows(np.tile(SILENCE, 20))  # the last ones of the first second wait for those before them
        session.marker("all")
        sink.wait("marker")
        engine.load.ran(1.0), engine.load.ran(1.0), engine.load.ran(1.0)
        error = refused(registry, "overload")
        assert error.retry_after
        assert error.retry_after >= 1

        def comes_in() -> bool:
            try:
                registry.discard(opened(registry))
            except Refused:
                return False
            return True

        wait_until(comes_in)


def test_an_event_loop_that_is_late_closes_the_door(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        registry._admission.headroom._behind = lambda: 100.0
        opened(registry)  # who is alone is let in
        assert "event loop" in refused(registry, "overload").message


def test_a_stream_that_is_there_is_never_refused_for_load(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        session = opened(registry, key="mine")
        registry._admission.headroom._behind = lambda: 100.0
        refused(registry, "overload", key="yours")
        assert opened(registry, key="mine") is session
        assert registry.attach("mine", Events()) is session


def test_a_stream_that_sleeps_is_refused_for_load_and_sleeps_on(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True, grace_seconds=0.0) as registry:
        sink = Events()
        session = opened(registry, key="mine", sink=sink)
        session.feed_rows(SILENCE)
        registry.detach(session, sink)
        registry.checkpoint()
        registry.sweep()
        assert registry.model_of("mine") is None
        opened(registry)
        registry._admission.headroom._behind = lambda: 100.0
        with pytest.raises(Refused) as caught:
            registry.attach("mine", Events())
        assert caught.value.reason == "overload"
        registry._admission.headroom._behind = lambda: 0.0
        assert registry.attach("mine", Events()).received == CHUNK


def test_streams_rank_by_who_listens_and_by_how_far_ahead_they_are(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        file, live = opened(registry), opened(registry)
        for session in (file, live):
            session.hold()  # no lane takes a chunk meanwhile
        file.feed_rows(np.tile(SILENCE, 100))
        live.feed_rows(SILENCE)
        ahead = [file._intake.take({"pcm": np.zeros(CHUNK, "<i2")}) for _ in range(50)]
        assert len(ahead) == 50
        for session in (file, live):
            session._rank()
        assert file._stream is not None
        assert live._stream is not None
        assert live._stream.deadline < file._stream.deadline
        assert file._stream.heard
        file.detach()
        file._rank()
        assert not file._stream.heard
        file.attach(Events())
        file._rank()
        assert file._stream.heard
        file._intake.in_flight = False


def test_idle_streams_are_no_load_and_those_without_a_client_none_for_long(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        headroom, engine = registry._admission.headroom, registry.engine(None)
        sessions = [opened(registry) for _ in range(5)]
        assert headroom._sending(engine) == (5, 5)
        for session in sessions:
            session.last_input -= 60
            session.begun -= 60
        assert headroom._sending(engine) == (0, 0)
        sessions[0].feed_rows(SILENCE)
        assert headroom._sending(engine) == (1, 0)
        sessions[0].detach()  # a client of HTTP comes and goes with each request
        assert headroom._sending(engine) == (1, 0)
        sessions[0].last_input -= 60
        assert headroom._sending(engine) == (0, 0)


def test_a_model_that_takes_less_than_its_share_still_gets_in_where_another_fills_the_machine(
    toy: Path, tmp_path: Path
) -> None:
    other = toy_model(tmp_path, name="other")
    with running(toy, other, folder=tmp_path, max_load=0.5) as registry:
        busy, quiet = registry.engine("toy"), registry.engine("other")
        session = opened(registry, model="toy")
        session.begun -= 60
        costs(busy, 0.0215)
        costs(quiet, 0.0004)
        assert 0.5 < registry._admission.headroom.share(busy) < 0.6
        refused(registry, "overload", model="toy")
        opened(registry, model="other").close()
        assert count(registry, "sessions_opened_total", model="other") == 1
