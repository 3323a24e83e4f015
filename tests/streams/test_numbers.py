"""Numbers in digits, behind the transcriber's task: for the streams that asked, and for no other of their batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.contract.manifest import Packed
from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.streams.finals import WrittenFinals
from streamer.streams.numbers import Formatter, Piece, formatter
from streamer.tasks import Task, create
from tests.engine.support import PATIENCE, Events, running, slots_used, wait_until
from tests.toys import level, speech, toy_model

WORDS = "twenty\tA\nthree\tB\n"
OPTIONS = {"units": "phones", "lexicon": Packed.pack(WORDS.encode()).model_dump(), "decoder": {"kind": "beam"}}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """It hears "A" as "twenty" and "B" as "three"."""
    return toy_model(tmp_path, options=OPTIONS)


def heard(task: Task, model: Model, texts: list[str], options: list[dict[str, Any]]) -> list[list[str]]:
    """Finals of streams side by side."""
    chunk = model.manifest.chunk
    pcm = np.stack([speech(text) for text in texts])
    pcm = np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % chunk)))
    stepper, memories = Stepper(model, len(texts)), [task.open(one) for one in options]
    found: list[list[str]] = [[] for _ in texts]
    for part in np.split(pcm, pcm.shape[1] // chunk, axis=1):
        events = task.step(memories, stepper.step(np.ascontiguousarray(part)), [model.manifest.steps] * len(texts))
        for row, own in enumerate(events):
            found[row] += [event.to_dict()["text"] for event in own if event.type == "final"]
    for row, memory in enumerate(memories):
        found[row] += [event.to_dict()["text"] for event in task.finish(memory)]
    return found


def test_only_streams_that_ask_get_digits(toy: Path) -> None:
    model = Model.load(toy)
    task = WrittenFinals(create(model.manifest))
    options = [{"numbers": "written"}, {}, {"numbers": "written"}]
    assert heard(task, model, ["AB", "AB", "BB"], options) == [["23"], ["twenty three"], ["three three"]]


def test_a_model_that_is_missing_is_told_of_when_a_stream_asks(toy: Path) -> None:
    def missing() -> Formatter:
        raise ModelError("no model 'numbers'")

    task = WrittenFinals(create(Model.load(toy).manifest), missing)
    task.open({})
    with pytest.raises(ValueError, match="no model 'numbers'"):
        task.open({"numbers": "written"})


def test_finals_of_a_batch_are_rewritten_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = formatter()
    calls: list[int] = []
    rewrite = shipped.rewrite
    monkeypatch.setattr(shipped, "rewrite", lambda said: (calls.append(len(said)), rewrite(said))[1])
    texts = [["twenty", "three"], ["hello"], ["it", "was", "nineteen", "point", "five"]]
    assert [[text for _, _, text in pieces] for pieces in shipped.write(texts)] == [
        ["23"],
        ["hello"],
        ["it", "was", "19.5"],
    ]
    assert calls == [2]


def test_what_is_written_does_not_depend_on_who_else_is_rewritten() -> None:
    """Phrases of all lengths, and one that does not end within its bound."""
    shipped = formatter()
    phrases = [
        ["twenty", "three"],
        ["one"],
        ["two", "thousand", "and", "nineteen"],
        ["minus", "five", "point", "two", "five"],
        ["quarter", "to", "seven"],
        ["one", "two", "three"] * 8,
        ["nineteen", "ninety", "nine"],
        ["one", "hundred", "thousand", "four", "hundred", "and", "twenty", "two"],
    ]
    together = shipped.rewrite(phrases)
    assert together == [shipped.rewrite([phrase])[0] for phrase in phrases]
    assert together == shipped.rewrite(phrases[::-1])[::-1]
    assert together[0] == "23"


def test_where_the_model_fails_numbers_stay_words(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.load(toy)
    monkeypatch.setattr(formatter()._model, "run", lambda feeds: 1 / 0)
    found = heard(WrittenFinals(create(model.manifest)), model, ["AB", "BB"], [{"numbers": "written"}, {}])
    assert found == [["twenty three"], ["three three"]]


def test_a_registry_s_streams_may_ask(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        sinks = [Events(), Events()]
        for sink, options in zip(sinks, ({"numbers": "written"}, {}), strict=True):
            session = registry.open(model=None, sample_rate=8000, sink=sink, options=options)
            session.feed(speech("AB").tobytes())
            session.end()
            sink.wait("end")
        assert [[event["text"] for event in sink.of("final")] for sink in sinks] == [["23"], ["twenty three"]]


def test_no_stream_waits_until_the_model_is_loaded(toy: Path, tmp_path: Path) -> None:
    formatter.cache_clear()
    with running(toy, folder=tmp_path) as registry:
        loaded = formatter.cache_info().misses
        assert loaded == 1
        registry.open(model=None, sample_rate=8000, sink=Events(), options={"numbers": "written"})
        assert formatter.cache_info().misses == loaded


def test_a_model_that_is_missing_matters_only_where_all_streams_want_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Formatter:
        raise ModelError("no model 'numbers'")

    monkeypatch.setattr("streamer.streams.loading.formatter", missing)
    with running(toy, folder=tmp_path) as registry:
        registry.open(model=None, sample_rate=8000, sink=Events())
    with pytest.raises(ModelError, match="no model 'numbers'"), running(toy, folder=tmp_path, numbers="written"):
        pass


class Gate:
    """The numbers' model, which waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self._write = formatter().write
        monkeypatch.setattr(formatter(), "write", self._wait)

    def _wait(self, texts: Sequence[Sequence[str]]) -> list[list[Piece]]:
        self.inside.set()
        assert self.go.wait(PATIENCE)
        return self._write(texts)


@pytest.mark.parametrize("last", ["flush", "nothing left", "gap"])
def test_no_session_is_locked_while_the_model_writes_its_last_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Of a stream that ends with steps to flush, of one of which everything has been run already, and before a gap."""
    model = toy_model(tmp_path, options=OPTIONS, flush=0 if last == "nothing left" else 2)
    with running(model, folder=tmp_path, buffer_seconds=0.5, store=True) as registry:
        gate, sink = Gate(monkeypatch), Events()
        overflow = "gap" if last == "gap" else "wait"
        session = registry.open(
            model=None, sample_rate=8000, sink=sink, options={"numbers": "written"}, overflow=overflow
        )
        session.feed(speech("AB")[:3200].tobytes())  # ten chunks
        wait_until(lambda: not session.busy)
        if last == "gap":
            session.hold()
            session.feed(level(0.0, 1.0).tobytes())
            thread = threading.Thread(target=session.go_on)
        else:
            thread = threading.Thread(target=session.end)
        thread.start()
        assert gate.inside.wait(PATIENCE)
        thread.join(PATIENCE)
        assert not thread.is_alive()  # neither who feeds nor the event loop waits
        assert session._lock.acquire(blocking=False)
        session._lock.release()
        assert session.busy
        with pytest.raises(TimeoutError):  # the stream is between two chunks when its last final is out
            session.snapshot(0.01)
        gate.go.set()
        assert sink.wait("final")["text"] == "23"
        if last == "gap":
            assert sink.wait("gap")["seq"] > sink.of("final")[0]["seq"]
            session.end()
        assert sink.wait("end")["position"] == session.received
        assert [event["text"] for event in sink.of("final")] == ["23"]


def test_a_stream_that_leaves_while_its_last_final_is_written_says_no_more(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(toy, folder=tmp_path) as registry:
        gate, sink = Gate(monkeypatch), Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, options={"numbers": "written"})
        session.feed(speech("AB").tobytes())
        session.end()
        assert gate.inside.wait(PATIENCE)
        registry.discard(session)
        gate.go.set()
        wait_until(lambda: slots_used(registry) == 0)
        assert not sink.of("final", "end")
        assert session.state == "closed"


def test_an_end_with_nothing_left_to_run_waits_for_who_holds_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model(tmp_path, options=OPTIONS, flush=0)
    with running(model, folder=tmp_path, store=True) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=8000, sink=sink, key="k", options={"numbers": "written"})
        session.feed(speech("AB")[:3200].tobytes())
        wait_until(lambda: not session.busy)
        session.hold()
        session.end()
        asleep = session.snapshot(PATIENCE)
        assert not asleep.finished
        assert not sink.of("final")
        session.detach()
        assert registry.keeper.evict(session, "grace")
        session.go_on()
        again = Events()
        registry.attach("k", again)  # it wakes with its end still to come
        assert again.wait("end")["position"] == 3200
        assert [event["text"] for event in again.of("final")] == ["23"]
