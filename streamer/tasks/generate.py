"""The task ``generate``: a model that runs on its own output; tokens become text, notes or sound.

A step of the model gives one or several tokens. Its input row holds the request as whole numbers
(:meth:`Generate.controls`): a new seed, temperature, top-k, conditions, tokens that are forced instead of drawn. The
last token and the random state are state of the graph; a stream's memory here holds its position and the notes that
are sounding.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from streamer.contract.manifest import Manifest
from streamer.faults import faults
from streamer.tasks.base import Event, TaskError
from streamer.tasks.strict import STRICT

__all__ = ["Audio", "Generate", "GenerateMemory", "GenerateOptions", "Note", "Request", "Text", "expand"]

FULL_SCALE = 32767
Names = Annotated[list[str], Field(min_length=1, max_length=65536)]
NOTE = re.compile(r"(on|off):(\d|\d\d|1[01]\d|12[0-7])|wait:[1-9]\d{0,5}")


class GenerateOptions(BaseModel):
    """``options`` of a manifest whose task is ``generate``.

    ``kind``: ``text`` (tokens are characters), ``notes`` (tokens are ``on:PITCH``, ``off:PITCH``, ``wait:TICKS``) or
    ``audio`` (tokens are mu-law levels at ``sample_rate``). Token 0 of text and notes is the start token and has no
    output. ``columns``: names of an input row's numbers, in order. ``conditions``: column -> names of its values.
    ``temperature``: the recommended default.
    """

    model_config = STRICT

    kind: Literal["text", "notes", "audio"]
    columns: Annotated[list[str], Field(min_length=2, max_length=1024)]
    vocabulary: Annotated[int, Field(ge=2, le=65536)]
    tokens: Annotated[list[str], Field(max_length=65536)] = []
    conditions: Annotated[dict[str, Names], Field(max_length=64)] = {}
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    sample_rate: Annotated[int, Field(ge=1, le=384000)] | None = None
    ticks_per_second: Annotated[float, Field(gt=0, le=10000)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> GenerateOptions:
        if self.kind == "audio" and (self.tokens or self.sample_rate is None):
            raise ValueError("audio has a sample_rate, and no names of tokens")
        if self.kind != "audio" and len(set(self.tokens)) != self.vocabulary:
            raise ValueError(f"{self.vocabulary} tokens are needed, each with its own name")
        if (self.kind == "notes") != (self.ticks_per_second is not None):
            raise ValueError("ticks_per_second belongs to notes")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is named twice")
        needed = ("seed", "temperature", "force0", *self.conditions)
        if missing := [name for name in needed if name not in self.columns]:
            raise ValueError(f"no column {', '.join(missing)}")
        if self.kind == "notes" and (strange := [t for t in self.tokens[1:] if not NOTE.fullmatch(t)]):
            raise ValueError(f"{strange[0]!r} is not on:PITCH, off:PITCH or wait:TICKS")
        return self


class Request(BaseModel):
    """A client's options for its stream. ``seed``: 1 to 2^31 - 1. ``top_k``: 0 draws from all tokens. ``conditions``:
    name -> value. ``prompt``: the first characters of the text."""

    model_config = STRICT

    seed: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    top_k: Annotated[int, Field(ge=0, le=65536)] = 0
    conditions: dict[str, str] = {}
    prompt: Annotated[str, Field(max_length=65536)] = ""


@dataclass(frozen=True, slots=True)
class Text:
    """``position``: tokens before it. ``log_prob``: log-probability of these characters at temperature 1, in nats."""

    position: int
    text: str
    log_prob: float
    type: str = "text"

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "position": self.position, "text": self.text, "log_prob": self.log_prob}


@dataclass(frozen=True, slots=True)
class Note:
    """A note that has ended. ``pitch`` as in MIDI (60: middle C); seconds since the start of the stream."""

    pitch: int
    start: float
    end: float
    type: str = "note"

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "pitch": self.pitch, "start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True)
class Audio:
    """int16 PCM at the model's ``sample_rate``. ``position``: samples before it. ``log_prob``: as in :class:`Text`."""

    position: int
    pcm: NDArray[np.int16]
    log_prob: float
    type: str = "audio"

    def to_dict(self) -> dict[str, Any]:
        pcm = base64.b64encode(self.pcm.astype("<i2").tobytes()).decode("ascii")
        return {"type": self.type, "position": self.position, "pcm": pcm, "log_prob": self.log_prob}


@dataclass(slots=True)
class GenerateMemory:
    """``position``: tokens so far. ``ticks``: time so far. ``sounding``: pitch -> the tick at which its note began."""

    request: Request
    position: int = 0
    ticks: int = 0
    sounding: dict[int, int] = field(default_factory=dict)


def expand(levels: NDArray[np.integer[Any]], vocabulary: int = 256) -> NDArray[np.int16]:
    """Mu-law levels to PCM (ITU-T G.711's curve, evenly spaced: level 0 is -1, the last one is 1)."""
    y = 2.0 * levels / (vocabulary - 1) - 1.0
    x = np.sign(y) * (vocabulary ** np.abs(y) - 1.0) / (vocabulary - 1)
    return np.round(FULL_SCALE * x).astype(np.int16)


class Generate:
    """Shared by all streams of one model. Outputs: ``tokens`` [N, T, F] and ``log_prob`` [N, T, F], F a step."""

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = GenerateOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't generate: {problems}; export the model again") from error
        columns, shapes = self.options.columns, {output.name: output.shape for output in manifest.outputs}
        self.width = sum(name.startswith("force") for name in columns)
        steps = manifest.input.chunk_shape[0]
        if shapes.get("tokens") != (steps, self.width) or shapes.get("log_prob") != (steps, self.width):
            raise TaskError(
                f"model {manifest.name!r} can't generate: its outputs are {shapes}, tokens and log_prob "
                f"[{steps}, {self.width}] are needed"
            )
        if manifest.input.limits is None or manifest.input.chunk_shape[1:] != (len(columns),):
            raise TaskError(f"model {manifest.name!r} can't generate: its input is not a row of {', '.join(columns)}")
        self.name = manifest.name
        self.codes = {token: code for code, token in enumerate(self.options.tokens)}

    def open(self, options: Mapping[str, Any]) -> GenerateMemory:
        try:
            request = Request.model_validate({"temperature": self.options.temperature, **options})
        except ValidationError as error:
            problems = faults(error, Request, "options")
            raise ValueError(f"stream options of the task generate do not fit: {problems}") from error
        self._check(request)
        return GenerateMemory(request)

    def _check(self, request: Request) -> None:
        if request.top_k and "top_k" not in self.options.columns:
            raise ValueError(f"{self.name} draws from all of its tokens: leave out top_k")
        for name, value in request.conditions.items():
            if name not in self.options.conditions:
                known = ", ".join(self.options.conditions) or "nothing"
                raise ValueError(f"{self.name} has no condition {name!r}; its conditions: {known}")
            if value not in self.options.conditions[name]:
                raise ValueError(f"{name} of {self.name} is one of {', '.join(self.options.conditions[name])}")
        if request.prompt and self.options.kind != "text":
            raise ValueError(f"{self.name} writes no text, so it takes no prompt")
        if strange := sorted({c for c in request.prompt if self.codes.get(c, 0) == 0}):
            known = "".join(self.options.tokens[1:])
            raise ValueError(f"{self.name} does not know {' '.join(map(repr, strange))}; it knows {known!r}")

    def controls(self, request: Request, start: int, steps: int) -> NDArray[np.int32]:
        """Input rows [steps, columns] for the steps from ``start`` on. The seed is in the first row of all."""
        columns = self.options.columns
        rows = np.zeros((steps, len(columns)), np.int32)
        rows[:, columns.index("temperature")] = round(1000 * request.temperature)
        if start == 0:
            rows[0, columns.index("seed")] = request.seed
        if "top_k" in columns:
            rows[:, columns.index("top_k")] = request.top_k
        for name, value in request.conditions.items():
            rows[:, columns.index(name)] = self.options.conditions[name].index(value)
        given = [self.codes[c] + 1 for c in request.prompt[start : start + steps]]  # text has one token a step
        rows[: len(given), columns.index("force0")] = given
        return rows

    def step(
        self, memories: Sequence[GenerateMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        events: list[list[Event]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            tokens = outputs["tokens"][row, :real].reshape(-1).astype(np.int64)
            nats = float(outputs["log_prob"][row, :real].astype(np.float64).sum())
            events.append(self._events(memory, tokens, nats) if real else [])
            memory.position += len(tokens)
        return events

    def _events(self, memory: GenerateMemory, tokens: NDArray[np.int64], nats: float) -> list[Event]:
        if self.options.kind == "audio":
            return [Audio(memory.position, expand(tokens, self.options.vocabulary), nats)]
        names = [self.options.tokens[token] if token else "" for token in tokens.tolist()]
        if self.options.kind == "text":
            return [Text(memory.position, "".join(names), nats)]
        return [note for name in names for note in self._play(memory, name)]

    def _play(self, memory: GenerateMemory, token: str) -> list[Event]:
        """The notes that end with ``token``. A note-on of a sounding pitch ends its note and begins a new one."""
        kind, _, number = token.partition(":")
        if kind == "wait":
            memory.ticks += int(number)
        ended: list[Event] = []
        if kind in ("on", "off") and int(number) in memory.sounding:
            ended.append(self._note(memory, int(number), memory.sounding.pop(int(number))))
        if kind == "on":
            memory.sounding[int(number)] = memory.ticks
        return ended

    def _note(self, memory: GenerateMemory, pitch: int, start: int) -> Note:
        second = self.options.ticks_per_second or 1.0
        return Note(pitch, start / second, memory.ticks / second)

    def copy(self, memory: GenerateMemory) -> GenerateMemory:
        return GenerateMemory(memory.request, memory.position, memory.ticks, dict(memory.sounding))

    def finish(self, memory: GenerateMemory) -> list[Event]:
        ended: list[Event] = [self._note(memory, pitch, start) for pitch, start in memory.sounding.items()]
        memory.sounding = {}
        return ended

    def save(self, memory: GenerateMemory) -> bytes:
        sounding = list(memory.sounding.items())
        facts = {"position": memory.position, "ticks": memory.ticks, "sounding": sounding}
        return json.dumps({"request": memory.request.model_dump(), **facts}, sort_keys=True).encode()

    def load(self, data: bytes) -> GenerateMemory:
        try:
            facts = json.loads(data)
            request = Request.model_validate(facts["request"])
            self._check(request)
            sounding = {int(pitch): int(start) for pitch, start in facts["sounding"]}
            return GenerateMemory(request, int(facts["position"]), int(facts["ticks"]), sounding)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a memory of this task: {error}") from error
