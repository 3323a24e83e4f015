"""Punctuation and capitals, behind the transcriber's task: for the streams that asked, and for no other of their batch.

What a model makes of a sentence is not asked here, but in its card: only what is sure of any sentence.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.contract.manifest import Packed
from streamer.engine.catalogue import WRITTEN, find_models
from streamer.engine.model import Model, ModelError
from streamer.streams.captions import Captioner, CaptionReading, captioner
from streamer.streams.finals import FinalsMemory, WrittenFinals
from streamer.tasks import Transcription, Word, create
from streamer.tasks.marks import Marks
from streamer.tasks.transcribe.options import TranscribeStreamOptions
from tests.engine.support import Events, feed, running
from tests.toys import speech, toy_model

WORDS = "john\tA\nthree\tB\n"
OPTIONS = {"units": "phones", "lexicon": Packed.pack(WORDS.encode()).model_dump(), "decoder": {"kind": "beam"}}
SENTENCE = "hello my name is john smith what can i do for you today".split()
BOTH = {"text": "written", "numbers": "written"}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """It hears "A" as "john" and "B" as "three"."""
    return toy_model(tmp_path, options=OPTIONS)


class Said:
    """A transcriber's task that says what it is given: ``outputs["said"]`` holds finals by row."""

    def __init__(self) -> None:
        self.finals: list[list[str]] = []

    def open(self, options: dict[str, Any]) -> Any:
        fields = {"decoder": {"kind": "greedy"}, "endpoint": {}}
        return type("Memory", (), {"options": TranscribeStreamOptions.model_validate(fields | options)})()

    def step(self, memories: list[Any], outputs: Any, steps: Any) -> list[list[Transcription]]:
        return [[final(text) for text in own] for own in self.finals]

    def finish(self, memory: Any) -> list[Transcription]:
        return []

    def save(self, memory: Any) -> bytes:
        return memory.options.model_dump_json().encode()

    def load(self, data: bytes) -> Any:
        return type("Memory", (), {"options": TranscribeStreamOptions.model_validate_json(data)})()


def final(text: str) -> Transcription:
    words = tuple(Word(word, float(i), i + 0.5, 0.9 - 0.01 * i) for i, word in enumerate(text.split(" ")))
    return Transcription("final", text, 0.0, len(words) - 0.5, words)


class Talk:
    """Streams side by side behind :class:`WrittenFinals`."""

    def __init__(self, *options: dict[str, Any], **more: Any) -> None:
        self.said = Said()
        self.task = WrittenFinals(self.said, **more)
        self.memories = [self.task.open(one) for one in options]

    def hear(self, *finals: list[str]) -> list[list[Any]]:
        self.said.finals = [list(own) for own in finals]
        return [list(own) for own in self.task.step(self.memories, {}, [1] * len(self.memories))]

    def texts(self, *finals: list[str]) -> list[list[str]]:
        return [[event.text for event in own] for own in self.hear(*finals)]


def plain(text: str) -> str:
    return re.sub(r"[,.?]", "", text).lower()


def test_only_streams_that_ask_get_it() -> None:
    talk = Talk({"text": "written"}, {}, {"text": "written"})
    heard = "yes please my name is john".split()
    first, second, third = talk.texts([" ".join(heard)], [" ".join(heard)], [" ".join(heard)])
    assert second == [" ".join(heard)]
    assert first == third
    assert plain(first[0]) == second[0]
    assert first[0].startswith("Yes")
    assert "John" in first[0]
    assert first[0][-1] in ".?"


def test_words_keep_their_plain_form_and_their_times() -> None:
    heard = final("what time is it")
    talk = Talk({"text": "written"})
    ((event,),) = talk.hear([heard.text])
    assert [(w.word, w.start, w.end, w.confidence) for w in event.words] == [
        (w.word, w.start, w.end, w.confidence) for w in heard.words
    ]
    assert " ".join(str(word.written) for word in event.words) == event.text
    assert event.to_dict()["words"][0]["written"].startswith("What")
    assert (event.start, event.end) == (heard.start, heard.end)


def test_numbers_in_digits_keep_the_mark_of_their_last_word() -> None:
    ((event,),) = Talk(BOTH).hear(["we need twenty three of them at five p m on the nineteenth"])
    assert "23" in event.text
    assert re.search(r"\b19th[,.?]?$", event.text)
    assert event.text.startswith("We need 23 of")
    digits = next(word for word in event.words if word.word == "23")
    assert (digits.start, digits.end, digits.written) == (2.0, 3.5, "23")
    ((only,),) = Talk({"numbers": "written"}).hear(["twenty three of them"])
    assert only.text == "23 of them"
    assert [word.written for word in only.words] == [None] * 3


def test_a_final_that_is_written_already_stays() -> None:
    talk = Talk(BOTH)
    own = ["Well, that's McDonald's.", "and the rest of it was"]
    first, second = talk.texts(own)[0]
    assert first == own[0]
    assert second.startswith("And")  # behind a full stop


def test_finals_without_word_times_are_written_too() -> None:
    talk = Talk(BOTH)
    talk.said.step = lambda *_: [[replace(final("i have twenty three of them"), words=())]]  # type: ignore[method-assign]
    ((event,),) = talk.hear([])
    assert plain(event.text) == "i have 23 of them"
    assert event.text.startswith("I have")
    assert event.words == ()


def test_a_word_with_a_space_in_it() -> None:
    talk = Talk(BOTH)
    words = (Word("thank you", 0.0, 1.0, 0.9), Word("john", 1.0, 2.0, 0.8))
    talk.said.step = lambda *_: [[Transcription("final", "thank you john", 0.0, 2.0, words)]]  # type: ignore[method-assign]
    ((event,),) = talk.hear([])
    assert [plain(str(word.written)) for word in event.words] == ["thank you", "john"]
    assert " ".join(str(word.written) for word in event.words) == event.text


def test_words_of_another_script_stay() -> None:
    assert Talk({"text": "written"}).texts(["привет мир"]) == [["привет мир"]]


# -- state -------------------------------------------------------------------------------------------------------------


def test_a_sentence_goes_on_in_the_next_final() -> None:
    """What was read stays: finals one by one are read as if they came together."""
    once = [SENTENCE[:4], SENTENCE[4:]]
    both, reading = CaptionReading(), CaptionReading()
    captions = captioner()
    (together,) = captions.read([once], [both])
    (first,) = captions.read([once[:1]], [reading])
    (second,) = captions.read([once[1:]], [reading])
    assert [*first, *second] == together
    for name, array in both.states.items():
        np.testing.assert_allclose(reading.states[name], array, atol=1e-5)
    assert any(not np.allclose(both.states[n], a, atol=1e-3) for n, a in _after(captions, once[1:]).items())


def _after(captions: Captioner, finals: list[list[str]]) -> dict[str, Any]:
    reading = CaptionReading()
    captions.read([finals], [reading])
    return reading.states


LINE = st.lists(st.sampled_from([*SENTENCE, "monday", "ceo", "x" * 40, "né"]), min_size=1, max_size=14)
COMPANY = st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5)


@settings(max_examples=25, deadline=None)
@given(own=st.lists(LINE, min_size=1, max_size=3), company=COMPANY)
def test_company_does_not_show(own: list[list[str]], company: list[list[list[str]]]) -> None:
    captions = captioner()
    (alone,) = captions.read([own], [CaptionReading()])
    readings = [CaptionReading() for _ in range(len(company) + 1)]
    (*_, last) = captions.read([*company, own], readings)
    assert last == alone
    for name, array in _after(captions, own).items():
        np.testing.assert_allclose(readings[-1].states[name], array, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(finals=st.lists(LINE, min_size=1, max_size=5), data=st.data())
def test_sleep_does_not_show(finals: list[list[str]], data: st.DataObject) -> None:
    stop = data.draw(st.integers(0, len(finals)))
    texts = [" ".join(words) for words in finals]
    awake, asleep = Talk(BOTH), Talk(BOTH)
    whole = [event.to_dict() for text in texts for event in awake.hear([text])[0]]
    parts = [event.to_dict() for text in texts[:stop] for event in asleep.hear([text])[0]]
    saved = asleep.task.save(asleep.memories[0])
    asleep.memories = [asleep.task.load(saved)]
    assert asleep.task.save(asleep.memories[0]) == saved
    parts += [event.to_dict() for text in texts[stop:] for event in asleep.hear([text])[0]]
    assert parts == whole


def test_streams_that_do_not_ask_are_saved_as_ever() -> None:
    talk = Talk({})
    assert talk.task.save(talk.memories[0]) == talk.said.save(talk.memories[0])
    for data in (b"\0finals", b"\0finalsSTM1"):
        with pytest.raises(ValueError, match="not a saved"):
            talk.task.load(data)


# -- a model that fails, or is missing ---------------------------------------------------------------------------------


def test_a_model_that_is_missing_is_told_of_when_a_stream_asks() -> None:
    def missing() -> Captioner:
        raise ModelError("no model 'written'")

    task = WrittenFinals(Said(), captioner_of=missing)  # type: ignore[arg-type]
    task.open({})
    with pytest.raises(ValueError, match="no model 'written'"):
        task.open({"text": "written"})


def test_where_the_model_fails_the_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(BOTH, {})
    monkeypatch.setattr(captioner().model, "run", lambda feeds: 1 / 0)
    assert talk.texts(["i have twenty three"], ["i have twenty three"]) == [["i have 23"], ["i have twenty three"]]
    memory = talk.memories[0]
    assert isinstance(memory, FinalsMemory)
    assert memory.reading.states == {}


# -- through the registry ----------------------------------------------------------------------------------------------


def finals(sink: Events) -> list[str]:
    return [event["text"] for event in sink.of("final")]


def test_a_registry_s_streams_may_ask(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path) as registry:
        sinks = [Events(), Events(), Events()]
        for sink, options in zip(sinks, ({"text": "written"}, {}, BOTH), strict=True):
            session = registry.open(model=None, sample_rate=8000, sink=sink, options=options)
            session.feed(speech("AB").tobytes())
            session.end()
            sink.wait("end")
        written, spoken, both = (finals(sink)[0] for sink in sinks)
    assert spoken == "john three"
    assert plain(written) == spoken
    assert written.startswith("John ")
    assert plain(both) == "john three"  # alone a small number stays a word
    assert all(event["text"] == event["text"].lower() for event in sinks[0].of("partial"))


def test_the_setting_holds_for_those_who_say_nothing(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, text="written") as registry:
        sinks = [Events(), Events()]
        for sink, options in zip(sinks, ({}, {"text": "spoken"}), strict=True):
            session = registry.open(model=None, sample_rate=8000, sink=sink, options=options)
            session.feed(speech("AB").tobytes())
            session.end()
            sink.wait("end")
    assert finals(sinks[0])[0].startswith("John ")
    assert finals(sinks[1]) == ["john three"]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_stream_that_slept_goes_on_in_its_sentence(toy: Path, tmp_path: Path, cut: int) -> None:
    """Drained between two finals, and in the middle of one."""
    quiet = np.zeros(2 * 8000, np.int16)
    pcm = np.concatenate([part for text in ("AB", "BA", "A", "BB") for part in (speech(text), quiet)])
    stop = cut * len(pcm) // 6
    awake, before, after = Events(), Events(), Events()
    with running(toy, folder=tmp_path, store=True) as registry:
        for sink, until in ((awake, len(pcm)), (before, stop)):
            session = registry.open(model=None, sample_rate=8000, sink=sink, options=BOTH)
            feed(session, [pcm[:until].tobytes()])
            if sink is awake:
                session.end()
                sink.wait("end")
                registry.discard(session)
        assert registry.drain(20) == 1
    with running(toy, folder=tmp_path, store=True) as registry:
        session = registry.attach(session.id, after, after_seq=max((e["seq"] for e in before.results), default=0))
        feed(session, [pcm[session.received :].tobytes()])
        session.end()
        after.wait("end")
    assert finals(before) + finals(after) == finals(awake)
    assert len(finals(awake)) == 4


def test_a_model_that_is_missing_matters_only_where_all_streams_want_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Captioner:
        raise ModelError("no model 'written'")

    monkeypatch.setattr("streamer.streams.loading.captioner", missing)
    with running(toy, folder=tmp_path) as registry:
        registry.open(model=None, sample_rate=8000, sink=Events())
    with pytest.raises(ModelError, match="no model 'written'"), running(toy, folder=tmp_path, text="written"):
        pass


def test_it_is_shipped() -> None:
    (path,) = (path for path in find_models() if path.stem == WRITTEN)
    manifest = Model.load(path).manifest
    assert path.stat().st_size < 1_100_000
    assert isinstance(create(manifest), Marks)
    assert 2 <= manifest.latency <= 4
