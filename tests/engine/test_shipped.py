"""The laws on every shipped file, through engine and registry, on speech: nothing changes the answer of the plain
loop."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.engine.model import Model
from streamer.streams.registry import Registry
from tests.engine.support import Event, Events, audio_models, feed, levels, pieces, reference, running

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "digits.flac"
SECONDS = 4
FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
#: Where an excerpt begins and where it is cut, as shares.
SHARE = st.floats(0, 1, allow_nan=False)
CUTS = st.lists(SHARE, max_size=10)

pytestmark = [pytest.mark.long, pytest.mark.parametrize("path", audio_models(), ids=lambda path: path.stem)]


@cache
def recording(rate: int) -> NDArray[np.int16]:
    sound, theirs = sf.read(SAMPLE, dtype="float32")
    return (soxr.resample(sound, theirs, rate) * 32767).astype(np.int16)


@cache
def rate_of(path: Path) -> int:
    rate = Model.load(path).manifest.input.sample_rate
    assert rate is not None
    return rate


def excerpt(path: Path, begin: float) -> NDArray[np.int16]:
    whole, length = recording(rate_of(path)), SECONDS * rate_of(path)
    start = round(begin * (len(whole) - length))
    return whole[start : start + length]


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(
        *audio_models(), folder=tmp_path_factory.mktemp("shipped"), max_batch=8, buffer_seconds=1.0
    ) as registry:
        yield registry


def same(got: list[Event], wanted: list[Event]) -> None:
    """Every event, number, word and time; confidences and samples up to the rounding of float32 in batches of another
    size."""
    assert [strip(event) for event in got] == [strip(event) for event in wanted]
    assert np.abs(levels(got) - levels(wanted)).max(initial=0) <= 1
    for one, other in zip(got, wanted, strict=True):
        theirs = [word["confidence"] for word in other.get("words", ())]
        assert [word["confidence"] for word in one.get("words", ())] == pytest.approx(theirs, abs=2e-3)


def strip(event: Event) -> Event:
    words = [{k: v for k, v in word.items() if k != "confidence"} for word in event.get("words", ())]
    return {name: value for name, value in event.items() if name != "pcm"} | {"words": words}


def split(pcm: NDArray[np.int16], cuts: list[float]) -> list[bytes]:
    return pieces(pcm, [round(cut * len(pcm)) for cut in cuts])


def test_there_is_something_to_be_the_same(path: Path) -> None:
    events = reference(path, recording(rate_of(path)))
    words = sum(len(event["words"]) for event in events if event["type"] == "final")
    assert words > 10 or np.abs(levels(events)).max(initial=0) > 1000


@FEW
@given(begin=SHARE, cuts=CUTS, company=st.lists(st.tuples(st.integers(0, 99), SHARE, st.booleans()), max_size=6))
def test_neither_split_nor_company_shows(
    registries: Registry, path: Path, begin: float, cuts: list[float], company: list[tuple[int, float, bool]]
) -> None:
    name, rate = Model.load(path).manifest.name, rate_of(path)
    others = []
    for seed, share, leaves in company:
        session = registries.open(model=name, sample_rate=rate, sink=Events(), overflow="gap")
        noise = np.random.default_rng(seed).integers(-32768, 32768, round(share * rate), np.int16)
        session.feed(noise.tobytes())
        others.append(session)
        if leaves:
            registries.discard(session)
    pcm, sink = excerpt(path, begin), Events()
    session = registries.open(model=name, sample_rate=rate, sink=sink)
    feed(session, split(pcm, cuts))
    session.end()
    sink.wait("end")
    for other in (*others, session):
        registries.discard(other)
    same(sink.results, reference(path, pcm))


@settings(FEW, max_examples=3)  # each loads the file two or three times
@given(begin=SHARE, cuts=st.lists(SHARE, min_size=1, max_size=2), drained=st.booleans())
def test_sleep_does_not_show(
    tmp_path_factory: pytest.TempPathFactory, path: Path, begin: float, cuts: list[float], drained: bool
) -> None:
    folder, pcm, rate = tmp_path_factory.mktemp("sleep"), excerpt(path, begin), rate_of(path)
    seen: dict[int, Event] = {}
    stream = None
    for stop in [*sorted(round(cut * len(pcm)) for cut in cuts), None]:
        with running(path, folder=folder, store=True, max_batch=2, capacity=4) as registry:
            sink = Events()
            if stream is None:
                session = registry.open(model=None, sample_rate=rate, sink=sink)
                stream = session.id
            else:
                session = registry.attach(stream, sink, after_seq=max(seen, default=0))
            feed(session, [pcm[session.received : stop].tobytes()])
            if stop is None:
                session.end()
                sink.wait("end")
            elif drained:
                assert registry.drain(20) == 1
            else:
                registry.checkpoint()
            for event in sink.results:
                assert seen.setdefault(event["seq"], event) == event  # bit for bit, also what comes twice
    wanted = [event for event in reference(path, pcm) if event["seq"] in seen or event["type"] != "partial"]
    same([seen[number] for number in sorted(seen)], wanted)
