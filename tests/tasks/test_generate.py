"""The task ``generate``: settings become rows, tokens become text, notes and sound; a memory goes on where it stood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamer.commands.midi import midi, synthesise
from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.contract.probe import probe
from streamer.tasks import TaskError, create
from streamer.tasks.generate import Audio, Generate, Note, Text, expand

LETTERS: dict[str, Any] = {
    "kind": "text",
    "columns": ["seed", "temperature", "top_k", "force0"],
    "vocabulary": 4,
    "tokens": ["<start>", "a", "b", " "],
    "temperature": 0.5,
}
NOTES = LETTERS | {
    "kind": "notes",
    "tokens": ["<start>", "on:60", "off:60", "wait:3"],
    "ticks_per_second": 4.0,
}
SOUND: dict[str, Any] = {
    "kind": "audio",
    "columns": ["seed", "temperature", "word", "force0", "force1"],
    "vocabulary": 256,
    "sample_rate": 8000,
    "conditions": {"word": ["nothing", "one", "two"]},
}


def task(options: dict[str, Any], steps: int = 3, **changes: Any) -> Generate:
    columns = len(options["columns"])
    width = max(1, sum(name.startswith("force") for name in options["columns"]))
    fields: dict[str, Any] = {
        "name": "toy",
        "version": "1",
        "task": "generate",
        "licence": "none",
        "input": Input(
            name="controls", dtype="int32", chunk_shape=(steps, columns), step_seconds=0.0, limits=((0, 9),) * columns
        ),
        "states": (),
        "outputs": (
            Output(name="tokens", dtype="int64", shape=(steps, width)),
            Output(name="log_prob", dtype="float32", shape=(steps, width)),
        ),
        "latency": 0,
        "flush": 0,
        "max_batch": 4,
        "options": options,
        "provenance": Provenance(data="", revision="", tolerance=0.0),
        "golden": Golden(chunks=(), outputs={"tokens": (), "log_prob": ()}),
    }
    made = create(Manifest.model_validate(fields | changes))
    assert isinstance(made, Generate)
    return made


def outputs(*tokens: list[int], width: int = 1) -> dict[str, np.ndarray]:
    rows = np.array(tokens).reshape(len(tokens), -1, width)
    return {"tokens": rows, "log_prob": np.full(rows.shape, -0.5, np.float32)}


def test_a_request_becomes_rows_of_whole_numbers() -> None:
    letters = task(LETTERS)
    memory = letters.open({"prompt": "ab a", "seed": 7, "top_k": 2})
    rows = [letters.controls(memory.request, start, 3).tolist() for start in (0, 3)]
    assert rows == [[[7, 500, 2, 2], [0, 500, 2, 3], [0, 500, 2, 4]], [[0, 500, 2, 2], [0, 500, 2, 0], [0, 500, 2, 0]]]
    sound = task(SOUND)
    told = sound.open({"conditions": {"word": "two"}, "temperature": 1.25})
    assert sound.controls(told.request, 0, 1).tolist() == [[1, 1250, 2, 0, 0]]


@pytest.mark.parametrize(
    ("options", "wish", "why"),
    [
        (LETTERS, {"prompt": "abc"}, "does not know 'c'"),
        (LETTERS, {"temperature": -1.0}, "temperature"),
        (LETTERS, {"seed": 0}, "seed"),
        (LETTERS, {"conditions": {"word": "one"}}, "has no condition 'word'"),
        (SOUND, {"conditions": {"word": "ten"}}, "one of nothing, one, two"),
        (SOUND, {"top_k": 3}, "leave out top_k"),
        (SOUND, {"prompt": "a"}, "takes no prompt"),
        (LETTERS, {"loud": True}, "loud"),
    ],
)
def test_what_a_model_can_not_do_is_told(options: dict[str, Any], wish: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        task(options).open(wish)


@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary": 5},
        {"tokens": ["a", "a", "b", "c"]},
        {"columns": ["seed", "temperature", "top_k"]},
        {"kind": "audio"},
        {"kind": "notes", "ticks_per_second": 4.0},
        {"ticks_per_second": 4.0},
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="can't generate"):
        task(LETTERS | change)


def test_text_counts_only_real_steps_and_the_start_says_nothing() -> None:
    letters = task(LETTERS)
    memory = letters.open({})
    assert letters.step([memory], outputs([0, 1, 2]), [3]) == [[Text(0, "ab", -1.5)]]
    assert letters.step([memory], outputs([3, 1, 2]), [1]) == [[Text(3, " ", -0.5)]]
    assert letters.step([memory], outputs([3, 1, 2]), [0]) == [[]]
    assert memory.position == 4


def test_notes_end_when_they_are_let_go_struck_again_or_the_stream_is_over() -> None:
    notes = task(NOTES)
    memory = notes.open({})
    assert notes.step([memory], outputs([1, 3, 2]), [3]) == [[Note(60, 0.0, 0.75)]]
    assert notes.step([memory], outputs([1, 3, 1]), [3]) == [[Note(60, 0.75, 1.5)]]
    other = notes.load(notes.save(memory))
    for each in (memory, other):
        assert notes.step([each], outputs([2, 2, 1]), [3]) == [[Note(60, 1.5, 1.5)]]
        assert notes.finish(each) == [Note(60, 1.5, 1.5)]
        assert notes.finish(each) == []


def test_sound_is_mu_law() -> None:
    levels = np.arange(256)
    pcm = expand(levels)
    assert pcm[[0, 255]].tolist() == [-32767, 32767]
    assert np.all(np.diff(pcm.astype(int)) > 0)
    assert np.array_equal(pcm, -pcm[::-1])
    sound = task(SOUND)
    memory = sound.open({})
    ((event,),) = sound.step([memory], outputs([1, 2, 3, 4, 5, 6], width=2), [2])
    assert isinstance(event, Audio)
    assert event.pcm.tolist() == pcm[1:5].tolist()
    assert event.to_dict()["pcm"]
    assert memory.position == 4


def test_foreign_bytes_are_no_memory() -> None:
    letters = task(LETTERS)
    for data in (b"", b"{}", b"[]", task(NOTES).save(task(SOUND).open({"conditions": {"word": "one"}}))):
        with pytest.raises(ValueError, match="not a memory"):
            letters.load(data)


def test_a_midi_file_by_hand() -> None:
    """A head, a track of (delta, message), and 960 ticks a second: 0.25 s is 240, two bytes of seven bits."""
    data = midi([Note(60, 0.25, 0.5), Note(64, 0.5, 0.5 + 1 / 960)])
    track = bytes.fromhex("8170903c50 8170803c00 00904050 01804000 00ff2f00".replace(" ", ""))
    assert data == b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(track).to_bytes(4, "big") + track


def test_the_synthesiser_sounds_where_the_note_is() -> None:
    pcm = synthesise([Note(69, 0.5, 1.0)], rate=8000)
    assert len(pcm) == 8800
    assert not pcm[:4000].any()
    spectrum = np.abs(np.fft.rfft(pcm[4000:8000]))
    assert spectrum.argmax() * 2 == 440


@pytest.mark.parametrize("limits", [((0, 9),), ((0, 9), (1, 9)), ((0, 9), (0, 2**31))])
def test_limits_are_pairs_around_zero_one_for_each_channel(limits: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="limits"):
        Input(name="controls", dtype="int32", chunk_shape=(3, 2), step_seconds=0.0, limits=limits)


def test_the_judge_tries_settings_within_their_limits() -> None:
    limits = ((0, 5), (-3, 0), (0, 2**31 - 1))
    spec = Input(name="controls", dtype="int32", chunk_shape=(20, 3), step_seconds=0.0, limits=limits)
    signal = probe(spec, 30, 4, np.random.default_rng(0))
    assert (signal.shape, signal.dtype) == ((30, 4, 20, 3), np.int32)
    for channel, (low, high) in enumerate(limits):
        values = signal[..., channel]
        assert low <= values.min() < values.max() <= high
        assert 0.3 < np.mean(values == 0) < 0.9
    along = np.moveaxis(signal, 0, 1).reshape(4, -1, 3)
    assert 0.02 < np.mean(np.any(along[:, 1:] != along[:, :-1], axis=2)) < 0.5
