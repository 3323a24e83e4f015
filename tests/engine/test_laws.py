"""The laws, through engine and registry, on every road: any split, any company, any sleep give the answer of the
plainest loop, and a neighbour that fails costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.generation import Generation
from streamer.streams.generators import Generators
from streamer.streams.registry import Registry
from tests.daemon.running import ROOT
from tests.engine.roads import LENGTH, ROADS, Road, answer, same, whole
from tests.engine.support import PATIENCE, Events, count, feed, feed_rows, running, slots_used
from tests.toys import samples

QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
SLOW = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
CUTS = st.lists(st.integers(0, LENGTH), max_size=12)
SEEDS = st.integers(0, 99)
LENGTHS = st.integers(0, LENGTH)

every_road = pytest.mark.parametrize("road", ROADS, ids=lambda road: road.name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("roads")
    return {road.name: road.make(folder) for road in ROADS}


@pytest.fixture(scope="module")
def registry(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    bounds: dict[str, Any] = {"max_batch": 8, "buffer_seconds": 0.2, "buffer_bytes": 14 * 20}
    with running(*files.values(), folder=tmp_path_factory.mktemp("laws"), **bounds) as registry:
        yield registry
        assert slots_used(registry) == 0


def expected(road: Road, files: dict[str, Path], rows: Any) -> list[dict[str, Any]]:
    return whole(files[road.name], rows, road.wishes)


def heard(seen: dict[int, dict[str, Any]], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but the partials that were superseded while nobody listened: they are not said any more."""
    return [event for event in events if event["seq"] in seen or event["type"] != "partial"]


@every_road
@QUICK
@given(seed=SEEDS, length=LENGTHS, cuts=CUTS)
def test_any_split_gives_what_one_call_gives(
    registry: Registry, files: dict[str, Path], road: Road, seed: int, length: int, cuts: list[int]
) -> None:
    rows = road.rows(seed, length)
    same(answer(road, registry, road.cuts(cuts, rows)), expected(road, files, rows), exact=True)


@every_road
@QUICK
@given(seed=SEEDS, company=st.lists(st.tuples(SEEDS, LENGTHS, st.booleans(), st.booleans()), max_size=8), cuts=CUTS)
def test_company_does_not_show(
    registry: Registry,
    files: dict[str, Path],
    road: Road,
    seed: int,
    company: list[tuple[int, int, bool, bool]],
    cuts: list[int],
) -> None:
    """Beside other streams, some of which fail in the model, and some of which vanish in the middle and leave their
    slots to the next ones."""
    others = []
    for other, length, leaves, fails in company:
        session = road.open(registry, Events())
        rows = road.rows(other, length)
        if fails and len(rows):
            rows = road.poison(rows)
        feed_rows(session, road.cuts(range(0, length, 500), rows), patient=False)
        if leaves:
            registry.discard(session)
        else:
            session.end()
            others.append(session)
    rows = road.rows(seed)
    same(answer(road, registry, road.cuts(cuts, rows)), expected(road, files, rows))
    for session in others:
        registry.discard(session)


@every_road
@SLOW
@given(seed=SEEDS, cuts=st.lists(st.integers(0, LENGTH), min_size=1, max_size=3), drained=st.booleans())
def test_sleep_does_not_show(
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    road: Road,
    seed: int,
    cuts: list[int],
    drained: bool,
) -> None:
    """Stopped anywhere, by a drain or by a crash after a checkpoint, any number of times; the client comes back for its
    key, and sends again from where the stream stands."""
    folder = tmp_path_factory.mktemp("sleep")
    rows = road.rows(seed)
    seen: dict[int, dict[str, Any]] = {}
    for stop in [*(round(cut * road.scale) for cut in sorted(cuts)), None]:
        with running(files[road.name], folder=folder, store=True, max_batch=4) as registry:
            sink = Events()
            session = road.open(registry, sink, key="pump", after_seq=max(seen, default=0))
            feed_rows(session, np.array_split(rows[session.received : stop], 3))
            if stop is None:
                session.end()
                sink.wait("end")
            elif drained:
                assert registry.drain(20) == 1
                assert sink.wait("restart")["position"] == stop
            else:
                registry.checkpoint()
                acknowledged = sink.of("ack")[-1]["position"]
                assert acknowledged <= stop  # of a long buffer the beginning is saved; the client sends the rest again
                assert acknowledged >= min(stop, 2 * Model.load(files[road.name]).manifest.chunk)
            for event in sink.results:
                same([event], [seen.setdefault(event["seq"], event)], exact=True)  # what comes twice is the same
    same([seen[number] for number in sorted(seen)], heard(seen, expected(road, files, rows)), exact=True)


@every_road
def test_a_stream_resumed_in_the_grace_time_goes_on(registry: Registry, files: dict[str, Path], road: Road) -> None:
    rows = road.rows(5)
    middle = len(rows) // 3
    first, second = Events(), Events()
    session = road.open(registry, first)
    feed_rows(session, [rows[:middle]])
    registry.detach(session, first)
    again = registry.attach(session.id, second, after_seq=max((e["seq"] for e in first.results), default=0))
    feed_rows(again, [rows[again.received :]])
    again.end()
    second.wait("end")
    seen = {event["seq"]: event for event in first.results + second.results}
    same([seen[number] for number in sorted(seen)], heard(seen, expected(road, files, rows)), exact=True)
    registry.discard(again)


@every_road
def test_a_failing_run_fails_its_stream_and_no_other(files: dict[str, Path], tmp_path: Path, road: Road) -> None:
    with running(files[road.name], folder=tmp_path, max_batch=8) as registry:
        poison = road.poison(road.rows(1))
        good = [road.rows(seed) for seed in range(4)]
        sinks = [Events() for _ in range(5)]
        streams = [road.open(registry, sink) for sink in sinks]
        for parts in zip(*(np.array_split(rows, 12) for rows in (poison, *good)), strict=True):
            for session, part in zip(streams, parts, strict=True):
                if session.state == "active":
                    feed_rows(session, [part], patient=False)
        for session in streams[1:]:
            session.end()
        assert sinks[0].wait("error")["code"] == "model_failed"
        for sink, rows in zip(sinks[1:], good, strict=True):
            sink.wait("end")
            same(sink.results, expected(road, files, rows))
        assert count(registry, "failed_batches_total", model=road.name) == 1
        assert count(registry, "evictions_total", reason="model_failed") == 1
        assert slots_used(registry) == 0


@SLOW
@given(seed=SEEDS, cut=st.integers(0, 2 * LENGTH), drained=st.booleans())
def test_sleep_does_not_show_where_it_is_resampled(
    toy: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, cut: int, drained: bool
) -> None:
    """What the resampler holds back sleeps, too: a stream at twice the model's rate."""
    pcm, undisturbed, before, after = samples(seed, 2 * LENGTH), Events(), Events(), Events()
    folder = tmp_path_factory.mktemp("resampled")
    with running(toy, folder=folder, store=True) as first:
        session = first.open(model=None, sample_rate=16000, sink=undisturbed)
        feed(session, [pcm.tobytes()])
        session.end()
        undisturbed.wait("end")
        first.discard(session)
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
    assert [seen[number] for number in sorted(seen)] == heard(seen, undisturbed.results)


# -- generators: nothing goes in, and what comes out is a function of the request ------------------------------------

CHARACTERS = ROOT / "models" / "zoo" / "trained" / "characters.onnx"
TOKENS = 120


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generators]:
    found = Generators(Settings(state_directory=tmp_path_factory.mktemp("written"), lanes=2, max_batch=8), Metrics())
    found.load([CHARACTERS])
    yield found
    assert found.close()


def written(generators: Generators, seed: int, length: int = TOKENS, after: int = 0) -> tuple[str, int]:
    """The text, and the position at which its first event begins."""
    there = threading.Event()
    stream = generators.open("characters", {"seed": seed}, length, after, there.set)
    events = []
    while not events or events[-1]["type"] not in ("end", "error"):
        if (event := stream.get()) is not None:
            events.append(event)
        else:
            assert there.wait(PATIENCE)
            there.clear()
    generators.leave(stream)
    assert events[-1]["type"] == "end"
    said = [event for event in events if event["type"] == "text"]
    return "".join(event["text"] for event in said), said[0]["position"] if said else length


def alone(seed: int) -> str:
    model = Model.load(CHARACTERS)
    one = Generation(model, [{"seed": seed}])
    chunks = -(-TOKENS // model.manifest.steps)
    return "".join(event.to_dict()["text"] for _ in range(chunks) for event in one.step()[0])[:TOKENS]


@SLOW
@given(seed=st.integers(1, 99), others=st.lists(st.tuples(st.integers(1, 99), st.integers(1, TOKENS)), max_size=6))
def test_a_generator_writes_the_same_in_any_company(
    generators: Generators, seed: int, others: list[tuple[int, int]]
) -> None:
    company = [generators.open("characters", {"seed": s}, length, 0, lambda: None) for s, length in others]
    assert written(generators, seed)[0] == alone(seed)
    for stream in company:
        generators.leave(stream)


@SLOW
@given(seed=st.integers(1, 99), after=st.integers(0, TOKENS - 1))
def test_who_asks_a_generator_again_gets_the_rest(generators: Generators, seed: int, after: int) -> None:
    rest, begin = written(generators, seed, after=after)
    assert begin <= after
    assert rest == alone(seed)[begin:]
