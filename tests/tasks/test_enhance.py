"""Enhancement: rows of samples become PCM with its place in the stream; splits, sleep, clipping and refusals."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.contract.manifest import Input, Output
from streamer.engine.proof import judge_file
from streamer.tasks import TaskError, create
from streamer.tasks.enhance import Enhance, Sound
from tests.enhancers import CHUNK, DELAY, enhancer_manifest, toy_enhancer

RATE = 8000


def task(**changes: Any) -> Enhance:
    made = create(enhancer_manifest(RATE, **changes))
    assert isinstance(made, Enhance)
    return made


def sounds(events: list[Any]) -> list[Sound]:
    assert all(isinstance(event, Sound) for event in events)
    return events


def test_the_toy_keeps_the_laws(tmp_path: Path) -> None:
    verdict = judge_file(toy_enhancer(tmp_path), long_chunks=40)
    assert verdict.ok, verdict.refusals


def test_samples_are_rounded_and_clipped_and_what_is_no_number_is_silence() -> None:
    made = task()
    memory = made.open({})
    row = np.zeros((1, 8, 8), np.float32)
    row[0, 0, :5] = [0.5, -1.5, 1.5, np.nan, np.inf]
    (sound,) = sounds(made.step([memory], {"audio": row}, [1])[0])
    assert sound.pcm.tolist() == [16384, -32768, 32767, 0, 0, 0, 0, 0]
    assert (memory.position, memory.bad) == (8, 2)


def test_int16_passes_as_it_is() -> None:
    made = task(outputs=(Output(name="audio", dtype="int16", shape=(CHUNK,)),), golden=_golden_int16(), latency=8)
    row = np.arange(-32, 32, dtype=np.int16)[None]
    (sound,) = sounds(made.step([made.open({})], {"audio": row}, [CHUNK])[0])
    assert sound.pcm.tolist() == row[0].tolist()
    assert sound.start == -8 / RATE


def _golden_int16() -> Any:
    from streamer.contract.manifest import Golden, Tensor

    pcm = Tensor.of(np.zeros((1, CHUNK), np.int16))
    return Golden(chunks=(pcm,), outputs={"audio": (pcm,)})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.booleans())
def test_any_number_of_steps_sleep_and_company(steps: list[int], sleep: bool) -> None:
    """Positions follow from what came before, and only real steps count."""
    made, rng = task(), np.random.default_rng(1)
    memory, beside = made.open({}), made.open({})
    got: list[Sound] = []
    want = []
    for real in steps:
        rows = rng.uniform(-1, 1, (2, 8, 8)).astype(np.float32)
        rows[0] = np.nan
        events = made.step([beside, memory], {"audio": rows}, [8, real])
        got += sounds(list(events[1]))
        want.append(rows[1, :real].flatten())
        if sleep:
            saved = made.save(memory)
            memory = made.load(saved)
            assert made.save(memory) == saved
    pcm = np.concatenate([s.pcm for s in got] or [np.zeros(0, np.int16)])
    assert pcm.tolist() == np.clip(np.rint(np.concatenate(want) * 32768), -32768, 32767).astype(int).tolist()
    at = -DELAY
    for sound in got:
        assert sound.start == at / RATE
        at += len(sound.pcm)
        assert sound.end == at / RATE
    assert made.finish(memory) == []


def test_an_event_is_json_with_its_pcm() -> None:
    found = Sound(np.array([1, -2], np.int16), -0.5, 0.0).to_dict()
    assert base64.b64decode(found.pop("pcm")) == b"\x01\x00\xfe\xff"
    assert found == {"type": "audio", "start": -0.5, "end": 0.0, "samples": 2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"options": {"gain": 2}}, "leave out gain"),
        ({"outputs": (Output(name="audio", dtype="float32", shape=(CHUNK // 2, 1)),)}, "of 64 samples"),
        ({"outputs": (Output(name="audio", dtype="float64", shape=(CHUNK,)),)}, "float32 or int16"),
        (
            {"input": Input(name="pcm", dtype="float32", chunk_shape=(CHUNK,), sample_rate=RATE)},
            "its input must be int16",
        ),
    ],
)
def test_a_manifest_that_does_not_fit(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError, match=told):
        create(enhancer_manifest(RATE, **changes))


def test_a_stream_has_no_options_and_a_memory_is_its_own() -> None:
    with pytest.raises(ValueError, match="leave out gain"):
        task().open({"gain": 1})
    for data in (b"", b"{}", b"[1]", b"[null, 1]"):
        with pytest.raises(ValueError, match="not a memory"):
            task().load(data)
