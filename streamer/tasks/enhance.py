"""The task ``enhance``: sound in, the same number of samples out, after a constant delay.

The task turns the model's samples into PCM and corrects their times by the model's delay. Each chunk gives one event.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.tasks.base import Event, TaskError

__all__ = ["Enhance", "EnhanceMemory", "Sound"]

Pcm = NDArray[np.int16]
#: Factor from float samples (full scale 1) to int16.
FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class Sound:
    """int16 PCM at the model's rate. ``start`` and ``end``: its place in the input, in seconds since the start of the
    stream; the first event begins before 0, by the model's delay."""

    pcm: Pcm
    start: float
    end: float
    type: str = "audio"

    def to_dict(self) -> dict[str, Any]:
        """``pcm``: s16le in base64; over a WebSocket it is a binary frame of its own."""
        pcm = base64.b64encode(self.pcm.astype("<i2").tobytes()).decode("ascii")
        return {"type": self.type, "start": self.start, "end": self.end, "samples": len(self.pcm), "pcm": pcm}


@dataclass(slots=True)
class EnhanceMemory:
    """``position``: samples put out so far. ``bad``: how many of them were NaN or infinite and became silence."""

    position: int = 0
    bad: int = 0


class Enhance:
    """Shared by all streams of one model. Its first output: float32 (full scale 1) or int16, [N, T, ...], as many
    numbers as a chunk has samples."""

    def __init__(self, manifest: Manifest) -> None:
        output, source = manifest.outputs[0], manifest.input
        count = int(np.prod(output.shape))
        problems = [f"leave out {', '.join(sorted(manifest.options))}: it has no options"] if manifest.options else []
        if source.sample_rate is None or source.dtype != "int16" or len(source.chunk_shape) != 1:
            problems.append("its input must be int16 samples, with a sample rate")
        if output.dtype not in ("float32", "int16") or count != manifest.chunk:
            problems.append(
                f"output {output.name!r} is {output.dtype} {output.shape}, float32 or int16 of {manifest.chunk} samples"
                " is needed, as many as the input has"
            )
        if problems:
            raise TaskError(f"model {manifest.name!r} can't enhance: {'; '.join(problems)}")
        assert source.sample_rate is not None
        self.output, self.rate = output.name, source.sample_rate
        self.hop = manifest.hop
        #: Delay of the output behind the input, in samples.
        self.delay = manifest.latency * manifest.hop

    def open(self, options: Mapping[str, Any]) -> EnhanceMemory:
        if options:
            raise ValueError(f"the task enhance has no options for a stream: leave out {', '.join(sorted(options))}")
        return EnhanceMemory()

    def step(
        self, memories: Sequence[EnhanceMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        samples = np.asarray(outputs[self.output])[: len(memories)].reshape(len(memories), -1)
        events: list[list[Event]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            pcm, bad = _pcm(samples[row, : real * self.hop])
            begin = memory.position - self.delay
            memory.position += len(pcm)
            memory.bad += bad
            sound = Sound(pcm, begin / self.rate, (begin + len(pcm)) / self.rate)
            events.append([sound] if len(pcm) else [])
        return events

    def copy(self, memory: EnhanceMemory) -> EnhanceMemory:
        return EnhanceMemory(memory.position, memory.bad)

    def finish(self, memory: EnhanceMemory) -> list[Event]:
        return []

    def save(self, memory: EnhanceMemory) -> bytes:
        return json.dumps([memory.position, memory.bad]).encode()

    def load(self, data: bytes) -> EnhanceMemory:
        try:
            position, bad = (int(n) for n in json.loads(data))
        except (ValueError, TypeError) as error:
            raise ValueError(f"not a memory of this task: {error}") from error
        return EnhanceMemory(position, bad)


def _pcm(samples: NDArray[Any]) -> tuple[Pcm, int]:
    """The samples as clipped int16, and the number of samples that were NaN or infinite."""
    if samples.dtype == np.int16:
        return samples.copy(), 0
    sane = np.isfinite(samples)
    bad = int(samples.size - np.count_nonzero(sane))
    scaled = np.rint((np.where(sane, samples, 0.0) if bad else samples) * FULL_SCALE)
    return np.clip(scaled, -32768, 32767).astype(np.int16), bad
