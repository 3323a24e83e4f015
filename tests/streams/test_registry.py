"""What the registry says and does at awkward moments: models that come, streams that leave or end, sinks that fail."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from streamer.refusals import Refused
from streamer.streams import registry as module
from streamer.streams.registry import Registry
from tests.engine.support import PATIENCE, Clock, Events, running
from tests.toys import samples, toy_model


@pytest.mark.parametrize("ask", [Registry.models, Registry.stuck])
def test_a_model_that_is_loaded_meanwhile_costs_no_answer(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    other = toy_model(tmp_path, name="other")
    with running(toy, other, folder=tmp_path) as registry:
        engines = list(registry._engines.items())
        describe, stuck = module.describe, engines[0][1].stuck

        def loaded() -> None:
            registry._engines.update(engines[1:])

        monkeypatch.setattr(module, "describe", lambda engine: (loaded(), describe(engine))[1])
        monkeypatch.setattr(engines[0][1], "stuck", lambda seconds: (loaded(), stuck(seconds))[1])
        del registry._engines["other"]
        ask(registry)
        assert set(registry._engines) == {"toy", "other"}


def test_a_stream_that_leaves_while_it_is_resumed_is_woken_again(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        session.feed(samples(1, 100).tobytes())
        registry.detach(session)
        assert registry.keeper.evict(session, "grace")
        wake = registry._admission.wake
        left: list[bool] = []

        def leaves(*given: Any) -> Any:
            session = wake(*given)
            if not left and session is not None:
                left.append(registry.keeper.evict(session, "grace"))
            return session

        registry._admission.wake = leaves  # type: ignore[method-assign, assignment]
        sink = Events()
        again = registry.attach("k", sink)
        assert left == [True]
        assert (again.sink, again.state, registry._table.holds(again)) == (sink, "active", True)


def test_a_stream_whose_sink_failed_is_one_without_a_client(toy: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(toy, folder=tmp_path, store=True, clock=clock) as registry:

        def broken(events: Any) -> None:
            raise RuntimeError("the loop is closed")

        session = registry.open(model=None, sample_rate=8000, sink=broken, key="k")
        session.marker("m")
        assert session.sink is None
        registry.sweep()
        clock.ahead = 3600
        registry.sweep()
        assert registry._table.get("k") is None


# -- a key whose end is still being run ------------------------------------------------------------------------------


def test_a_key_whose_end_is_still_being_run_begins_anew(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        first, second = Events(), Events()
        session = registry.open(model=None, sample_rate=8000, sink=first, key="k")
        session.hold()
        session.feed(samples(1, 3200).tobytes())
        session.end()
        assert registry.rejoin(model=None, sink=second, key="k") is None
        found: list[Any] = []
        opening = threading.Thread(
            target=lambda: found.append(registry.open(model=None, sample_rate=8000, sink=second, key="k"))
        )
        opening.start()
        while not session._waiters._waiting:  # it waits for the end
            threading.Event().wait(0.001)
        session.go_on()
        opening.join(PATIENCE)
        (again,) = found
        assert (again is session, again.received, again.resumed) == (False, 0, False)
        assert first.wait("end")["position"] == 3200
        assert not first.of("error")
        again.feed(samples(1, 100).tobytes(), second)


def test_who_comes_for_the_rest_of_a_key_that_was_ended_gets_it(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        session.hold()
        session.feed(samples(1, 3200).tobytes())
        session.end()
        assert registry.open(model=None, sample_rate=8000, sink=sink, key="k", after_seq=0) is session
        session.go_on()
        assert sink.wait("end")["position"] == 3200


def test_a_key_whose_end_does_not_come_is_refused(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True, stuck_seconds=1.0) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        session.hold()
        session.feed(samples(1, 3200).tobytes())
        session.end()
        registry.settings = registry.settings.model_copy(update={"stuck_seconds": 0.01})
        with pytest.raises(Refused) as caught:
            registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        assert caught.value.reason == "duplicate"
        session.go_on()
