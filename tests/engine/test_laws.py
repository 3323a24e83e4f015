"""The laws, through engine and registry: any split, any company, any sleep give the answer of the plainest loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.streams.registry import Registry
from tests.engine.support import Events, count, feed, pieces, reference, running, slots_used
from tests.toys import samples

LENGTH = 6000
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLOW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CUTS = st.lists(st.integers(0, LENGTH), max_size=12)


@pytest.fixture(scope="module")
def registry(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(toy, folder=tmp_path_factory.mktemp("laws"), max_batch=8, buffer_seconds=0.2) as registry:
        yield registry
        assert slots_used(registry) == 0


def answer(registry: Registry, data: list[bytes]) -> list[dict[str, object]]:
    sink = Events()
    session = registry.open(model=None, sample_rate=8000, sink=sink)
    feed(session, data)
    session.end()
    sink.wait("end", "error")
    registry.discard(session)
    return sink.results


def heard(seen: dict[int, dict[str, object]], events: list[dict[str, object]]) -> list[dict[str, object]]:
    """All but the partials that were superseded while nobody listened: they are not said any more."""
    return [event for event in events if event["seq"] in seen or event["type"] != "partial"]


@QUICK
@given(seed=st.integers(0, 99), length=st.integers(0, LENGTH), cuts=CUTS)
def test_any_split_gives_what_one_call_gives(
    registry: Registry, toy: Path, seed: int, length: int, cuts: list[int]
) -> None:
    pcm = samples(seed, length)
    assert answer(registry, pieces(pcm, [cut for cut in cuts if cut <= length])) == reference(toy, pcm)


@QUICK
@given(
    seed=st.integers(0, 99),
    company=st.lists(st.tuples(st.integers(0, 99), st.integers(0, LENGTH), st.booleans()), max_size=10),
    cuts=CUTS,
)
def test_company_does_not_show(
    registry: Registry, toy: Path, seed: int, company: list[tuple[int, int, bool]], cuts: list[int]
) -> None:
    """Beside other streams, garbage, and streams that vanish in the middle and leave their slots to the next ones."""
    others = []
    for other, length, leaves in company:
        session = registry.open(model=None, sample_rate=8000, sink=Events())
        noise = np.random.default_rng(other).integers(-32768, 32768, length, np.int16)
        feed(session, pieces(noise, range(0, length, 1000)))
        if leaves:
            registry.discard(session)
        else:
            session.end()
            others.append(session)
    pcm = samples(seed, LENGTH)
    assert answer(registry, pieces(pcm, cuts)) == reference(toy, pcm)
    for session in others:
        registry.discard(session)


@SLOW
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, LENGTH), min_size=1, max_size=3), drained=st.booleans())
def test_sleep_does_not_show(
    toy: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int], drained: bool
) -> None:
    """Stopped anywhere, by a drain or by a crash after a checkpoint, any number of times; the client resumes."""
    folder = tmp_path_factory.mktemp("sleep")
    pcm = samples(seed, LENGTH)
    stream = None
    seen: dict[int, dict[str, object]] = {}
    for stop in [*sorted(cuts), None]:
        with running(toy, folder=folder, store=True, max_batch=4) as registry:
            sink = Events()
            if stream is None:
                session = registry.open(model=None, sample_rate=8000, sink=sink)
                stream = session.id
            else:
                session = registry.attach(stream, sink, after_seq=max(seen, default=0))
            feed(session, pieces(pcm[session.received : stop], [100, 777]))
            if stop is None:
                session.end()
                sink.wait("end")
            elif drained:
                assert registry.drain(20) == 1
                assert sink.wait("restart")["position"] == stop
            else:
                registry.checkpoint()
                # of a long buffer the beginning is saved; the client sends the rest again
                assert min(stop, 640) <= sink.of("ack")[-1]["position"] <= stop
            for event in sink.results:
                assert seen.setdefault(event["seq"], event) == event  # what comes twice is the same
    assert [seen[number] for number in sorted(seen)] == heard(seen, reference(toy, pcm))


@SLOW
@given(seed=st.integers(0, 99), cut=st.integers(0, 2 * LENGTH), drained=st.booleans())
def test_sleep_does_not_show_where_it_is_resampled(
    registry: Registry, toy: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, cut: int, drained: bool
) -> None:
    """What the resampler holds back sleeps, too: a stream at twice the model's rate."""
    pcm, whole = samples(seed, 2 * LENGTH), Events()
    folder = tmp_path_factory.mktemp("resampled")
    session = registry.open(model=None, sample_rate=16000, sink=whole)
    feed(session, [pcm.tobytes()])
    session.end()
    whole.wait("end")
    registry.discard(session)
    before, after = Events(), Events()
    with running(toy, folder=folder, store=True) as first:
        session = first.open(model=None, sample_rate=16000, sink=before)
        feed(session, [pcm[:cut].tobytes()])
        if drained:
            assert first.drain(20) == 1
        else:
            first.checkpoint()
    with running(toy, folder=folder, store=True) as second:
        session = second.attach(session.id, after, after_seq=max((e["seq"] for e in before.results), default=0))
        feed(session, [pcm[session.received :].tobytes()])
        session.end()
        after.wait("end")
    seen = {event["seq"]: event for event in before.results}
    for event in after.results:
        assert seen.setdefault(event["seq"], event) == event
    assert [seen[number] for number in sorted(seen)] == heard(seen, whole.results)


def test_a_stream_resumed_in_the_grace_time_goes_on(registry: Registry, toy: Path) -> None:
    pcm = samples(5, LENGTH)
    first, second = Events(), Events()
    session = registry.open(model=None, sample_rate=8000, sink=first)
    feed(session, [pcm[:2500].tobytes()])
    registry.detach(session, first)
    again = registry.attach(session.id, second, after_seq=max((e["seq"] for e in first.results), default=0))
    feed(again, [pcm[again.received :].tobytes()])
    again.end()
    second.wait("end")
    seen = {event["seq"]: event for event in first.results + second.results}
    assert [seen[number] for number in sorted(seen)] == heard(seen, reference(toy, pcm))
    registry.discard(again)


def test_a_failing_run_fails_its_stream_and_no_other(trap: Path, toy: Path, tmp_path: Path) -> None:
    with running(trap, folder=tmp_path, max_batch=8) as registry:
        poison = samples(1, LENGTH)
        poison[3000] = 32767
        good = [samples(seed, LENGTH) for seed in range(4)]
        sinks = [Events() for _ in range(5)]
        streams = [registry.open(model="trap", sample_rate=8000, sink=sink) for sink in sinks]
        for at in range(0, LENGTH, 500):
            for session, pcm in zip(streams, [poison, *good], strict=True):
                if session.state == "active":
                    feed(session, [pcm[at : at + 500].tobytes()])
        for session in streams[1:]:
            session.end()
        error = sinks[0].wait("error")
        assert error["code"] == "model_failed"
        for sink, pcm in zip(sinks[1:], good, strict=True):
            sink.wait("end")
            assert sink.results == reference(trap, pcm)
        assert count(registry, "failed_batches_total", model="trap") == 1
        assert count(registry, "evictions_total", reason="model_failed") == 1
        assert slots_used(registry) == 0
