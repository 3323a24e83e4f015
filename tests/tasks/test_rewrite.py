"""The task ``rewrite``: signs become phrases, across chunks and sleep, whatever a file says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks import TaskError, create
from streamer.tasks.rewrite import Rewrite

OPTIONS = {"words": ["a", "b", "c"], "signs": ["x", "yy", " "]}


def manifest(options: dict[str, Any], limits: tuple[tuple[int, int], ...] = ((0, 3), (0, 1))) -> Manifest:
    outputs = (
        Output(name="signs", dtype="int64", shape=(4,)),
        Output(name="log_prob", dtype="float32", shape=(4,)),
    )
    fields = {
        "name": "small", "version": "1", "task": "rewrite", "licence": "none", "states": (), "latency": 0, "flush": 0,
        "input": Input(name="phrase", dtype="int32", chunk_shape=(4, 2), step_seconds=0.0, limits=limits),
        "outputs": outputs, "max_batch": 8, "options": options,
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(chunks=(), outputs={"signs": (), "log_prob": ()}),
    }  # fmt: skip
    return Manifest.model_validate(fields)


def play(signs: list[int], cuts: list[int], sleep: bool = False) -> list[dict[str, Any]]:
    task = create(manifest(OPTIONS))
    memory, events = task.open({}), []
    for part in np.split(np.array(signs), cuts):
        nats = np.full((1, len(part)), -0.5, np.float32)
        events += task.step([memory], {"signs": part[None], "log_prob": nats}, [len(part)])[0]
        if sleep:
            memory = task.load(task.save(memory))
    return [event.to_dict() for event in [*events, *task.finish(memory)]]


SIGNS = [0, 0, 2, 3, 1, 0, 0, 4, 0, 3, 2, 2, 1, 0, 0, 2]


def test_phrases() -> None:
    assert play(SIGNS, []) == [
        {"type": "rewritten", "step": 4, "text": "xyy", "log_prob": -1.5},
        {"type": "rewritten", "step": 12, "text": "yyxx", "log_prob": -2.0},  # what a word broke off is dropped
    ]


@pytest.mark.parametrize("cuts", [[1], [3, 4, 5], list(range(1, 16))])
def test_cuts_and_sleep_change_nothing(cuts: list[int]) -> None:
    assert play(SIGNS, cuts) == play(SIGNS, cuts, sleep=True) == play(SIGNS, [])


def test_padded_steps_do_not_count() -> None:
    task = Rewrite(manifest(OPTIONS))
    memories = [task.open({}), task.open({})]
    outputs = {"signs": np.array([[2, 1, 2, 1], [3, 3, 3, 1]]), "log_prob": np.zeros((2, 4), np.float32)}
    events = task.step(memories, outputs, [2, 3])
    assert [[e.to_dict()["text"] for e in row] for row in events] == [["x"], []]
    assert [memory.step for memory in memories] == [2, 3]


def test_a_code_that_no_sign_has_is_a_question_mark() -> None:
    assert [e["text"] for e in play([2, 99, -7, 3, 1], [])] == ["x??yy"]


def test_rows_end_together() -> None:
    rows = Rewrite(manifest(OPTIONS)).rows([["a"], ["b", "c"]], 2)
    assert rows.tolist() == [[[0, 0], [1, 1], [0, 0], [0, 0]], [[2, 0], [3, 1], [0, 0], [0, 0]]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TaskError, match=r"options\.signs"):
        create(manifest({"words": ["a"]}))
    with pytest.raises(TaskError, match="limits"):
        create(manifest(OPTIONS, ((0, 4), (0, 1))))
    task = create(manifest(OPTIONS))
    with pytest.raises(ValueError, match="leave out beam"):
        task.open({"beam": 1})
    for data in (b"", b"[]", b"{}", b'{"step": 1, "said": 3, "log_prob": 0}'):
        with pytest.raises(ValueError, match="not a memory"):
            task.load(data)
