"""Classification: hysteresis against the plainest loop; splits, company and sleep; answers and refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.streams.delivery import Late, to_dicts
from streamer.tasks import TaskError, create
from streamer.tasks.classify import Answer, Classify, Segment

STEP = 0.04
VAD = {"mode": "running", "labels": ["speech"], "segments": {"on": 0.6, "off": 0.3, "minimum": 0.08, "hangover": 0.12}}
WORDS = {"mode": "running", "labels": ["other", "yes", "no"], "quiet": ["other"]}
MOOD = {"mode": "final", "labels": ["bad", "good"]}


def manifest(options: dict[str, Any], *, clock: bool = True, **changes: Any) -> Manifest:
    """8 steps of 40 ms a chunk at 16 kHz; without a clock 8 bytes."""
    pcm = Input(name="pcm", dtype="int16", chunk_shape=(8 * 640,), sample_rate=16000)
    text = Input(name="text", dtype="uint8", chunk_shape=(8,), step_seconds=0.0)
    outputs = (Output(name="scores", dtype="float32", shape=(8, max(1, len(options["labels"])))),)
    fields: dict[str, Any] = {
        "name": "small", "version": "1", "task": "classify", "licence": "Apache-2.0", "states": (),
        "input": pcm if clock else text, "outputs": outputs, "latency": 0, "flush": 0, "max_batch": 64,
        "options": options, "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(chunks=(), outputs={"scores": ()}),
    }  # fmt: skip
    return Manifest.model_validate(fields | changes)


def task(options: dict[str, Any], **more: Any) -> Classify:
    made = create(manifest(options, **more))
    assert isinstance(made, Classify)
    return made


def play(
    task: Classify, scores: NDArray[Any], options: dict[str, Any] | None = None, cuts: list[int] | None = None,
    sleep: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Events of one stream [T, L], cut before the steps ``cuts``; ``sleep``: saved and loaded at every cut."""
    memory, events = task.open(options or {}), []
    for begin, end in pairwise([0, *sorted(cuts or []), len(scores)]):
        events += task.step([memory], {"scores": scores[None, begin:end]}, [end - begin])[0]
        if sleep:
            saved = task.save(memory)
            memory = task.load(saved)
            assert task.save(memory) == saved
    return [event.to_dict() for event in [*events, *task.finish(memory)]]


def firm(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] != "partial"]


def spans(events: list[dict[str, Any]], phase: str = "end") -> list[tuple[Any, ...]]:
    return [(e["label"], e["start"], e["end"]) for e in events if e["type"] == "segment" and e["phase"] == phase]


def column(*runs: tuple[float, int]) -> NDArray[np.float32]:
    """(probability, steps) one after another -> [T, 1]."""
    return np.concatenate([np.full((n, 1), p, np.float32) for p, n in runs])


def by_hand(p: NDArray[Any], on: float, off: float, minimum: int, hangover: int) -> list[tuple[int, int]]:
    """Segments (first, behind the last) of one label's probabilities [T], as the docstring of the task says."""
    found, t = [], 0
    while t < len(p):
        if p[t] < on:
            t += 1
            continue
        first = t
        held = next((i for i in range(t, len(p)) if p[i] < off), len(p))  # not yet told: no hangover
        if held - first < minimum:
            t = held + 1
            continue
        last = held - 1
        for t in range(held, len(p)):
            if p[t] >= off:
                last = t
            elif t - last >= hangover:
                break
        else:
            t = len(p)
        found.append((first, last + 1))
        t += 1
    return found


def test_a_segment_begins_when_told_and_ends_where_it_was_last_heard() -> None:
    events = play(task(VAD), column((0.1, 5), (0.9, 10), (0.1, 10)))
    begin, end = [e for e in events if e["type"] == "segment"]
    assert begin == {
        "type": "segment", "phase": "begin", "label": "speech", "start": 0.2, "end": None, "confidence": 0.9,
    }  # fmt: skip
    assert end == {"type": "segment", "phase": "end", "label": "speech", "start": 0.2, "end": 0.6, "confidence": 0.9}


def test_hysteresis() -> None:
    """Between off and on a segment goes on and none begins; a click is none; the hangover bridges a short gap."""
    assert spans(play(task(VAD), column((0.5, 20)))) == []
    assert spans(play(task(VAD), column((0.9, 2), (0.5, 10), (0.1, 9)))) == [("speech", 0.0, 0.48)]
    assert spans(play(task(VAD), column((0.1, 3), (0.9, 1), (0.1, 9)))) == []
    assert spans(play(task(VAD), column((0.9, 5), (0.1, 2), (0.5, 3), (0.1, 9)))) == [("speech", 0.0, 0.4)]
    assert spans(play(task(VAD), column((0.9, 5), (0.1, 3), (0.9, 2), (0.1, 9)))) == [
        ("speech", 0.0, 0.2),
        ("speech", 0.32, 0.4),
    ]


def test_what_is_open_ends_with_the_stream_and_a_candidate_does_not() -> None:
    assert spans(play(task(VAD), column((0.1, 5), (0.9, 5)))) == [("speech", 0.2, 0.4)]
    assert spans(play(task(VAD), column((0.1, 5), (0.9, 1)))) == []


@given(seed=st.integers(0, 10**6), minimum=st.integers(1, 4), hangover=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_random_probabilities_against_the_plainest_loop(seed: int, minimum: int, hangover: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.repeat(rng.random(60), rng.integers(1, 5, 60))[:120]
    rules = {"on": 0.6, "off": 0.35, "minimum": minimum * STEP, "hangover": hangover * STEP}
    found = spans(play(task(VAD), p[:, None], {"segments": rules, "partials": False}, [40, 41, 90]))
    wanted = by_hand(p, 0.6, 0.35, minimum, hangover)
    assert found == [("speech", round(a * STEP, 3), round(b * STEP, 3)) for a, b in wanted]


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 100), max_size=6))
@settings(max_examples=40, deadline=None)
def test_splits_and_sleep_change_nothing_firm(seed: int, cuts: list[int]) -> None:
    scores = np.random.default_rng(seed).dirichlet(np.ones(3) * 0.4, 100)
    whole = play(task(WORDS), scores)
    assert firm(play(task(WORDS), scores, cuts=cuts, sleep=True)) == firm(whole)


def test_rows_do_not_know_of_each_other() -> None:
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.ones(3) * 0.4, (4, 40))
    made = task(WORDS)
    alone = [play(made, row, cuts=[16]) for row in scores]
    wishes: list[dict[str, Any]] = [{}, {"segments": {"on": 0.9}}, {"partials": False}, {}]
    memories = [made.open(wish) for wish in wishes]
    poisoned = np.concatenate([scores, np.full((1, 40, 3), np.nan)])
    memories.append(made.open({}))
    first = made.step(memories, {"scores": poisoned[:, :16]}, [16, 16, 7, 16, 16])
    second = made.step(memories, {"scores": poisoned[:, 16:]}, [24, 24, 0, 24, 24])
    for row in (0, 3):
        got = [*first[row], *second[row], *made.finish(memories[row])]
        assert [event.to_dict() for event in got] == alone[row]
    assert second[2] == []
    assert memories[4].bad == 40


def test_broken_rows_are_no_segment_and_no_broken_json() -> None:
    scores = np.full((10, 1), np.nan, np.float32)
    events = play(task(VAD), scores)
    assert spans(events) == []
    assert events[-1]["scores"] == {"speech": 0.0}


def test_quiet_labels_are_never_a_segment() -> None:
    scores = np.tile([0.9, 0.05, 0.05], (30, 1))
    assert spans(play(task(WORDS), scores)) == []


def test_running_and_final_answers() -> None:
    events = play(task(VAD), column((0.9, 8), (0.1, 24)), cuts=[8, 16])
    partials = [e for e in events if e["type"] == "partial"]
    assert [(e["label"], e["end"]) for e in partials] == [("speech", 0.32), (None, 0.64), (None, 1.28)]
    final = {"type": "final", "label": "speech", "start": 0.0, "end": 1.28, "scores": {"speech": 0.3}}
    assert events[-1] == final
    assert play(task(VAD), column((0.1, 8)))[-1]["label"] is None


def test_the_mode_final_answers_with_the_last_step() -> None:
    scores = np.stack([np.linspace(0.9, 0.2, 20), np.linspace(0.1, 0.8, 20)], axis=1)
    events = play(task(MOOD, clock=False), scores, cuts=[8])
    assert [(e["type"], e["label"], e["end"]) for e in events] == [
        ("partial", "bad", 8.0),
        ("partial", "good", 20.0),
        ("final", "good", 20.0),
    ]
    assert events[-1]["scores"] == {"bad": 0.2, "good": 0.8}
    assert play(task(MOOD), scores[:0]) == []


def test_padding_is_not_the_last_step() -> None:
    made = task(MOOD)
    memory = made.open({"partials": False})
    scores = np.array([[[0.9, 0.1]] * 3 + [[0.0, 1.0]] * 5])
    assert made.step([memory], {"scores": scores}, [3]) == [[]]
    assert made.finish(memory)[0].to_dict()["label"] == "bad"


def test_times_are_corrected_by_the_delay() -> None:
    events = play(task(VAD | {"delay_steps": 2}), column((0.1, 5), (0.9, 10), (0.1, 10)))
    assert spans(events) == [("speech", 0.12, 0.52)]


def test_times_go_on_behind_a_gap() -> None:
    late = Late(seconds=2.5, rows=20000, steps=250)
    begun, answer = to_dicts([Segment("begin", "speech", 1.0, None, 0.9), Answer("final", None, 0.0, 1.0, {})], late)
    assert begun | {"type": ""} == {
        "type": "", "phase": "begin", "label": "speech", "start": 3.5, "end": None, "confidence": 0.9,
    }  # fmt: skip
    assert answer["end"] == 3.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sometimes", "labels": ["a"]}, "options.mode"),
        ({"mode": "running", "labels": []}, "options.labels"),
        ({"mode": "running", "labels": ["a", "a"]}, "named twice"),
        ({"mode": "running", "labels": ["a"], "quiet": ["b"]}, "quiet names b"),
        ({"mode": "final", "labels": ["a"]}, "two labels"),
        ({"mode": "running", "labels": ["a"], "segments": {"on": 0.2, "off": 0.4}}, "off is at most on"),
        ({"mode": "running", "labels": ["a"], "text": True}, "text comes as uint8"),
    ],
)
def test_bad_manifests_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        create(manifest(options))
    assert "\n" not in str(caught.value)


def test_an_output_of_another_width_is_refused() -> None:
    outputs = (Output(name="scores", dtype="float32", shape=(8, 2)),)
    with pytest.raises(TaskError, match="3 labels"):
        create(manifest(WORDS, outputs=outputs))


@pytest.mark.parametrize(
    "wish", [{"segments": {"on": 2}}, {"segments": {"of": 0.1}}, {"segments": 3}, {"labels": []}, {"partials": "no"}]
)
def test_bad_wishes_are_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stream options of the task classify do not fit"):
        task(VAD).open(wish)


def test_foreign_memories_are_refused() -> None:
    words = task(WORDS)
    saved = words.save(words.open({}))
    for data in (b"", b"junk", saved[:-1], task(VAD).save(task(VAD).open({}))):
        with pytest.raises(ValueError, match=r"not a (saved task )?memory"):
            words.load(data)
    assert words.load(saved).steps == 0
