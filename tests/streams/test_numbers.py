"""Numbers in digits, behind the transcriber's task: for the streams that asked, and for no other of their batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.contract.manifest import Packed
from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.streams.finals import WrittenFinals
from streamer.streams.numbers import Formatter, formatter
from streamer.tasks import Task, create
from tests.engine.support import Events, running
from tests.toys import speech, toy_model

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

    monkeypatch.setattr("streamer.streams.registry.formatter", missing)
    with running(toy, folder=tmp_path) as registry:
        registry.open(model=None, sample_rate=8000, sink=Events())
    with pytest.raises(ModelError, match="no model 'numbers'"), running(toy, folder=tmp_path, numbers="written"):
        pass
