"""Small manifests and log-probabilities that the tests of the tasks share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks.transcribe.task import Transcribe

STEP_SECONDS = 0.03


def manifest(options: dict[str, Any], steps: int = 10) -> Manifest:
    """A model of 30 ms steps at 16 kHz with these task options; it has no graph behind it and needs none."""
    vocabulary = len(options["tokens"])
    return Manifest.model_validate(
        {
            "name": "small",
            "version": "1",
            "task": "transcribe",
            "licence": "Apache-2.0",
            "input": Input(name="pcm", dtype="int16", chunk_shape=(480 * steps,), sample_rate=16000),
            "states": (),
            "outputs": (Output(name="logp", dtype="float32", shape=(steps, vocabulary)),),
            "latency": 0,
            "flush": 0,
            "max_batch": 64,
            "options": options,
            "provenance": Provenance(data="none", revision="none", tolerance=0.0),
            "golden": Golden(chunks=(), outputs={"logp": ()}),
        }
    )


def task(options: dict[str, Any]) -> Transcribe:
    return Transcribe(manifest(options))


def rows(path: list[int], vocabulary: int, peak: float = 0.9) -> NDArray[np.float32]:
    """Log-probabilities [T, V] with ``peak`` on the tokens of ``path`` and the rest spread evenly."""
    p = np.full((len(path), vocabulary), (1 - peak) / (vocabulary - 1), np.float32)
    p[np.arange(len(path)), path] = peak
    return np.log(p)


def peaky(rng: np.random.Generator, steps: int, vocabulary: int, sharpness: float = 4.0) -> NDArray[np.float32]:
    """Random log-probabilities [T, V] that look like CTC: mostly blank (token 0), sometimes a token, seldom sure."""
    logits = rng.normal(size=(steps, vocabulary)) * sharpness / 2
    logits[:, 0] += np.where(rng.random(steps) < 0.6, sharpness * 2, 0)
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def play(
    task: Transcribe,
    logp: NDArray[np.float32],
    options: dict[str, Any] | None = None,
    cuts: list[int] | None = None,
    sleep: bool = False,
) -> list[dict[str, Any]]:
    """Events of one stream, cut before the steps ``cuts``; ``sleep``: saved and loaded at every cut."""
    memory, events = task.open(options or {}), []
    edges = [0, *sorted(cuts or []), len(logp)]
    for begin, end in pairwise(edges):
        events += task.step([memory], {task.output: logp[None, begin:end]}, [end - begin])[0]
        if sleep:
            saved = task.save(memory)
            memory = task.load(saved)
            assert task.save(memory) == saved
    events += task.finish(memory)
    return [event.to_dict() for event in events]


def finals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "final"]


def spoken(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The finals with words. One without takes back the partial before it, and partials depend on the chunks."""
    for before, event in pairwise([{"type": "final", "text": ""}, *events]):
        if event["type"] == "final" and not event["text"]:
            assert before["type"] == "partial"
            assert before["text"]
    return [event for event in finals(events) if event["text"]]


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in finals(events)]
