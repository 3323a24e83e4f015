"""Decodes log-probabilities with the daemon's decoder, and computes word error rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.speech.acoustic import Acoustic
from models.speech.data import Utterance
from models.training.score import bootstrap, edits, log_probs
from streamer.contract.manifest import Golden, Input, Manifest, Output, Packed, Provenance
from streamer.tasks.transcribe.task import Transcribe, decode_all


def transcriber(
    info: dict[str, Any], lexicon: bytes | None, lm: bytes | None = None, decoder: dict[str, Any] | None = None
) -> Transcribe:
    """The daemon's task for a checkpoint that is not exported yet. ``info``: of the checkpoint; ``info["symbols"]``: of
    a transducer, the most tokens of a step. ``decoder``: replaces the checkpoint's decoder options.
    """
    options: dict[str, Any] = {"tokens": info["tokens"], "units": info.get("units", "phones")}
    options |= info.get("options", {})
    if decoder is not None:
        options["decoder"] = decoder
    if lexicon is not None:
        options["lexicon"] = Packed.pack(lexicon).model_dump()
    if lm is not None:
        options["lm"] = Packed.pack(lm).model_dump()
    hop, steps = info["hop"], 8
    shape = (steps, *([info["symbols"]] if "symbols" in info else []), len(info["tokens"]))
    manifest = Manifest(
        schema=1,
        name=info["name"],
        version="0",
        task="transcribe",
        licence=info["licence"],
        input=Input(name="pcm", dtype="int16", chunk_shape=(hop * steps,), sample_rate=info["sample_rate"]),
        states=(),
        outputs=(Output(name="log_probs", dtype="float32", shape=shape),),
        latency=0,
        flush=0,
        max_batch=64,
        options=options,
        provenance=Provenance(data="", revision="", tolerance=0.0),
        golden=Golden(chunks=(), outputs={"log_probs": ()}),
    )
    return Transcribe(manifest)


@dataclass(frozen=True)
class SpeechScore:
    """A word error rate (0.1 is 10 %) with its 95 % interval over speakers, and the transcripts."""

    rate: float
    low: float
    high: float
    words: int
    recordings: int
    pairs: list[tuple[str, str]]  # (reference, transcript)

    def __str__(self) -> str:
        interval = f"{100 * self.low:.1f} to {100 * self.high:.1f}"
        return f"{100 * self.rate:.1f} % ({interval}; {self.words} words, {self.recordings} recordings)"


def score(utterances: Sequence[Utterance], heard: Sequence[str]) -> SpeechScore:
    wrong = [edits(u.text.lower().split(), text.split()) for u, text in zip(utterances, heard, strict=True)]
    words = [len(u.text.split()) for u in utterances]
    low, high = bootstrap(wrong, words, [u.speaker for u in utterances])
    pairs = [(u.text.lower(), text) for u, text in zip(utterances, heard, strict=True)]
    return SpeechScore(sum(wrong) / max(1, sum(words)), low, high, sum(words), len(utterances), pairs)


def evaluate(
    model: Acoustic, task: Transcribe, utterances: Sequence[Utterance], options: dict[str, Any] | None = None
) -> SpeechScore:
    rows: list[NDArray[np.float32]] = log_probs(model, [u.pcm for u in utterances])
    return score(utterances, decode_all(task, rows, options))
