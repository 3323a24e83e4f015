"""The task ``rewrite``: a phrase of words goes in, then the model writes it character by character.

An input row is (word, end): a word's code or 0, and 1 with the last word of a phrase. After that row each row without a
word gives one character, up to the end of the phrase (:mod:`models.shipped.encoder_decoder`). The manifest calls the
characters ``signs``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from streamer.contract.manifest import Manifest
from streamer.tasks.base import TaskError
from streamer.tasks.strict import STRICT

__all__ = ["END", "Rewrite", "RewriteMemory", "RewriteOptions", "Rewritten"]

#: Output code for the end of a phrase; 0 is no output, codes from 2 on are characters.
END = 1
#: Maximum number of characters in one phrase; further ones are dropped.
MOST = 4096
Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=65536)]


class RewriteOptions(BaseModel):
    """``options`` of a manifest whose task is ``rewrite``. ``words`` have the codes from 1 on, ``signs`` from 2 on."""

    model_config = STRICT

    words: Names
    signs: Names


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A whole phrase. ``step``: the step at which it ended; ``log_prob``: its log-probability in nats."""

    step: int
    text: str
    log_prob: float
    type: str = "rewritten"

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "step": self.step, "text": self.text, "log_prob": self.log_prob}


@dataclass(slots=True)
class RewriteMemory:
    """``step``: number of steps so far. ``pending``: character codes of the unfinished phrase. ``log_prob``: theirs."""

    step: int = 0
    pending: list[int] = field(default_factory=list)
    log_prob: float = 0.0


class Rewrite:
    """Shared by all streams of one model. Outputs: ``signs`` [N, T] and ``log_prob`` [N, T]."""

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = RewriteOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't rewrite: {problems}; export the model again") from error
        shapes = {output.name: output.shape for output in manifest.outputs}
        steps = manifest.input.chunk_shape[0]
        if shapes.get("signs") != (steps,) or shapes.get("log_prob") != (steps,):
            raise TaskError(
                f"model {manifest.name!r} can't rewrite: its outputs are {shapes}, signs and log_prob [{steps}] are "
                "needed"
            )
        limits = ((0, len(self.options.words)), (0, 1))
        if manifest.input.limits != limits:
            raise TaskError(f"model {manifest.name!r} can't rewrite: the limits of its input are not {limits}")
        self.codes = {word: code for code, word in enumerate(self.options.words, 1)}

    def rows(self, phrases: Sequence[Sequence[str]], more: int) -> NDArray[np.int32]:
        """Input [N, T, 2]: phrases aligned so that all end in the same row, then at least ``more`` rows of zeros for
        the output."""
        longest = max(map(len, phrases))
        rows = np.zeros((len(phrases), longest + more, 2), np.int32)
        for row, words in zip(rows, phrases, strict=True):
            row[longest - len(words) : longest, 0] = [self.codes[word] for word in words]
            row[longest - 1, 1] = 1
        return rows

    def open(self, options: Mapping[str, Any]) -> RewriteMemory:
        if options:
            raise ValueError(
                f"the task rewrite has no options for a stream: leave out {', '.join(sorted(map(str, options)))}"
            )
        return RewriteMemory()

    def step(
        self, memories: Sequence[RewriteMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Rewritten]]:
        events: list[list[Rewritten]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            signs = outputs["signs"][row, :real].astype(np.int64).tolist()
            nats = outputs["log_prob"][row, :real].astype(np.float64).tolist()
            events.append(self._read(memory, signs, nats))
        return events

    def _read(self, memory: RewriteMemory, signs: list[int], nats: list[float]) -> list[Rewritten]:
        found: list[Rewritten] = []
        for sign, log_prob in zip(signs, nats, strict=True):
            if sign == 0:  # an input row with a word: the unfinished phrase is dropped
                memory.pending, memory.log_prob = [], 0.0
            elif sign == END:
                text = "".join(self._sign(code) for code in memory.pending)
                found.append(Rewritten(memory.step, text, memory.log_prob + log_prob))
                memory.pending, memory.log_prob = [], 0.0
            elif len(memory.pending) < MOST:
                memory.pending.append(sign)
                memory.log_prob += log_prob
            memory.step += 1
        return found

    def _sign(self, code: int) -> str:
        """The character of a code; ``?`` for an unknown code, so that a bad file can't end the stream."""
        return self.options.signs[code - 2] if 2 <= code < len(self.options.signs) + 2 else "?"

    def copy(self, memory: RewriteMemory) -> RewriteMemory:
        return RewriteMemory(memory.step, list(memory.pending), memory.log_prob)

    def finish(self, memory: RewriteMemory) -> list[Rewritten]:
        return []

    def save(self, memory: RewriteMemory) -> bytes:
        facts = {"step": memory.step, "said": memory.pending, "log_prob": memory.log_prob}
        return json.dumps(facts, sort_keys=True).encode()

    def load(self, data: bytes) -> RewriteMemory:
        try:
            facts = json.loads(data)
            return RewriteMemory(int(facts["step"]), [int(code) for code in facts["said"]], float(facts["log_prob"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a memory of this task: {error}") from error
