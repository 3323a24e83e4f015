"""The task ``classify``: labels step by step, or one label for the whole stream.

A model gives a probability for each label and step. Mode ``running`` turns them into segments by hysteresis: a segment
of a label begins with the step at which its probability reaches ``on``, is reported once it has lasted ``minimum``
seconds, and ends when the probability has been below ``off`` for ``hangover`` seconds. In mode ``final`` the answer is
the last step's. Both modes report a running answer once a chunk, and a final one at the end of the stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from streamer.contract.manifest import Manifest
from streamer.faults import faults
from streamer.tasks.base import Event, TaskError
from streamer.tasks.snapshot import pack, unpack
from streamer.tasks.strict import STRICT

__all__ = ["Answer", "Classify", "ClassifyMemory", "ClassifyOptions", "Segment", "SegmentRules"]

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

#: Columns of a label's row in a stream's memory: OPEN (0: no segment, 1: begun and not yet reported, 2: reported),
#: FIRST and LAST step, TOTAL (sum of probabilities since FIRST), KEPT (TOTAL up to LAST), HELD (steps in segments that
#: have ended), SUM (of probabilities over all steps).
OPEN, FIRST, LAST, TOTAL, KEPT, HELD, SUM = range(7)
FIELDS = 7


class SegmentRules(BaseModel):
    """``on`` and ``off``: probabilities. ``minimum`` and ``hangover``: seconds; steps for a model without a clock."""

    model_config = STRICT

    on: Probability = 0.5
    off: Probability = 0.35
    minimum: Seconds = 0.1
    hangover: Seconds = 0.2

    @model_validator(mode="after")
    def _consistent(self) -> SegmentRules:
        if self.off > self.on:
            raise ValueError("off is at most on")
        return self


class ClassifyOptions(BaseModel):
    """``options`` of a manifest whose task is ``classify``.

    ``labels``: names of the first output's columns. ``quiet``: labels that never make a segment ("something else").
    ``delay_steps``: the model's answers lag behind its input by this many steps (times are corrected by it).
    ``text``: the input is the bytes of a text in UTF-8, one a step.
    """

    model_config = STRICT

    mode: Literal["running", "final"]
    labels: Annotated[list[Name], Field(min_length=1, max_length=65536)]
    quiet: list[str] = []
    segments: SegmentRules = SegmentRules()
    delay_steps: Annotated[int, Field(ge=0)] = 0
    text: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> ClassifyOptions:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is named twice")
        if strange := sorted(set(self.quiet) - set(self.labels)):
            raise ValueError(f"quiet names {', '.join(strange)}, which is not among the labels")
        if self.mode == "final" and (self.quiet or len(self.labels) < 2):
            raise ValueError("the mode final needs two labels or more, all of which may be the answer")
        return self


class ClassifyStreamOptions(BaseModel):
    """A client's options for its stream; omitted fields keep the model's defaults."""

    model_config = STRICT

    segments: SegmentRules
    partials: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """The begin or end of a segment, as ``phase`` says; ``end`` is ``None`` in a begin. Times are seconds since the
    start of the stream (steps, where the model has no clock). ``confidence``: the mean probability so far."""

    phase: str
    label: str
    start: float
    end: float | None
    confidence: float
    type: str = "segment"

    def to_dict(self) -> dict[str, Any]:
        where = {"start": self.start, "end": self.end}
        return {"type": self.type, "phase": self.phase, "label": self.label, **where, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Answer:
    """The running answer up to ``end`` (``partial``), or the answer for the whole stream (``final``).

    ``label``: in mode ``running`` the label of the current segment, in its final the label with the most time in
    segments; ``None`` without a segment. ``scores``: label -> probability of the last step; in a final of mode
    ``running`` the mean over all steps."""

    type: str
    label: str | None
    start: float
    end: float
    scores: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        where = {"start": self.start, "end": self.end}
        return {"type": self.type, "label": self.label, **where, "scores": dict(self.scores)}


@dataclass(slots=True, eq=False)
class ClassifyMemory:
    """One stream. ``labels`` [L, FIELDS] and ``last`` [L], the last step's probabilities, are float64: exact counts.

    ``bad``: number of steps with a probability that was NaN or infinite; it counts as 0.
    """

    options: ClassifyStreamOptions
    labels: NDArray[np.float64]
    last: NDArray[np.float64]
    steps: int = 0
    bad: int = 0


class Classify:
    """Shared by all streams of one model (:class:`streamer.tasks.Task`); its first output: [N, T, L] probabilities."""

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = ClassifyOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't classify: {problems}; export the model again") from error
        count, output = len(self.options.labels), manifest.outputs[0]
        if output.shape[1:] != (count,) or np.dtype(output.dtype).kind != "f":
            raise TaskError(
                f"model {manifest.name!r} can't classify: output {output.name!r} is {output.dtype} {output.shape}, "
                f"float32 [steps, {count} labels] is needed"
            )
        if self.options.text and (manifest.input.dtype != "uint8" or manifest.input.sample_rate is not None):
            raise TaskError(f"model {manifest.name!r} can't classify: text comes as uint8, without a sample rate")
        self.output = output.name
        #: Seconds of a step, or 1 without a clock.
        self.step_seconds = manifest.chunk_seconds / manifest.steps or 1.0
        self._never = np.isin(self.options.labels, self.options.quiet)

    # -- the protocol ------------------------------------------------------------------------------------------------

    def open(self, options: Mapping[str, Any]) -> ClassifyMemory:
        count = len(self.options.labels)
        return ClassifyMemory(self._parse(options), np.zeros((count, FIELDS)), np.zeros(count))

    def step(
        self, memories: Sequence[ClassifyMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        raw = np.asarray(outputs[self.output], np.float64)[: len(memories)]
        sane = np.isfinite(raw)
        scores = np.where(sane, raw, 0.0).clip(0.0, 1.0)
        real = np.asarray(steps, np.int64)
        events: list[list[Event]] = [[] for _ in memories]
        if self.options.mode == "running":
            self._segment(memories, scores, real, events)
        for row, memory in enumerate(memories):
            if count := int(real[row]):
                memory.bad += int((~sane[row, :count]).any(axis=1).sum())
                memory.steps += count
                memory.last = scores[row, count - 1].copy()
                if memory.options.partials:
                    events[row].append(self._answer("partial", memory))
        return events

    def copy(self, memory: ClassifyMemory) -> ClassifyMemory:
        return ClassifyMemory(memory.options, memory.labels.copy(), memory.last.copy(), memory.steps, memory.bad)

    def finish(self, memory: ClassifyMemory) -> list[Event]:
        """The ends of open segments, then the final answer unless the stream was empty."""
        if not memory.steps:
            return []
        ended: list[Event] = []
        for number in np.flatnonzero(memory.labels[:, OPEN] == 2).tolist():
            fields = memory.labels[number]
            ended.append(self._end(fields, number))
            fields[HELD] += fields[LAST] - fields[FIRST] + 1
        memory.labels[:, OPEN] = 0
        return [*ended, self._answer("final", memory)]

    def save(self, memory: ClassifyMemory) -> bytes:
        counts = [memory.steps, memory.bad]
        return pack({"options": memory.options.model_dump(), "counts": counts}, [memory.labels, memory.last])

    def load(self, data: bytes) -> ClassifyMemory:
        facts, arrays = unpack(data)
        count = len(self.options.labels)
        try:
            options = self._parse(facts["options"])
            steps, bad = (int(n) for n in facts["counts"])
            if [(a.dtype.str, a.shape) for a in arrays] != [("<f8", (count, FIELDS)), ("<f8", (count,))]:
                raise ValueError("it belongs to a model with other labels")
            labels, last = arrays
            return ClassifyMemory(options, labels, last, steps, bad)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a memory of this task: {error}") from error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _parse(self, given: Mapping[str, Any]) -> ClassifyStreamOptions:
        segments = given.get("segments", {})
        merged = {**self.options.segments.model_dump(), **segments} if isinstance(segments, Mapping) else segments
        try:
            return ClassifyStreamOptions.model_validate({**given, "segments": merged})
        except ValidationError as error:
            problems = faults(error, ClassifyStreamOptions, "options")
            raise ValueError(f"stream options of the task classify do not fit: {problems}") from error

    def _rules(self, memories: Sequence[ClassifyMemory]) -> tuple[NDArray[np.float64], ...]:
        """``on`` [N, L]; ``off``, ``minimum`` and ``hangover`` [N, 1]. The last two are in steps, at least one."""
        rules = [memory.options.segments for memory in memories]
        on, off = (np.array([[getattr(rule, name)] for rule in rules]) for name in ("on", "off"))
        seconds = np.array([[rule.minimum, rule.hangover] for rule in rules])
        steps = np.maximum(np.round(seconds / self.step_seconds), 1.0)
        return np.where(self._never, np.inf, on), off, steps[:, :1], steps[:, 1:]

    def _segment(
        self,
        memories: Sequence[ClassifyMemory],
        scores: NDArray[np.float64],
        steps: NDArray[np.int64],
        events: list[list[Event]],
    ) -> None:
        """Update the segments of all rows and labels, step by step, and append begins and ends to ``events``.

        ``scores`` [N, T, L], ``steps`` [N]. Operations are elementwise, so rows do not affect each other.
        """
        on, off, minimum, hangover = self._rules(memories)
        table = np.stack([memory.labels for memory in memories], axis=2).transpose(1, 2, 0)  # [FIELDS, N, L]
        opened, first, last, total, kept, held, summed = (table[i].copy() for i in range(FIELDS))
        origin = np.array([[memory.steps] for memory in memories], np.float64)
        for t in range(int(steps.max(initial=0))):
            real, x, now = (steps > t)[:, None], scores[:, t], origin + t
            starts = real & (opened == 0) & (x >= on)
            opened[starts], total[starts] = 1, 0.0
            first = np.where(starts, now, first)
            under = real & (opened > 0)
            total = np.where(under, total + x, total)
            summed = np.where(real, summed + x, summed)
            low = under & (x < off)
            firm = under & ~low
            last, kept = np.where(firm, now, last), np.where(firm, total, kept)
            opened[low & (opened == 1)] = 0
            begins = firm & (opened == 1) & (now - first + 1 >= minimum)
            opened[begins] = 2
            ends = low & (opened == 2) & (now - last >= hangover)
            opened[ends] = 0
            held = np.where(ends, held + last - first + 1, held)
            for row, number in np.argwhere(begins | ends).tolist():
                fields = np.array([field[row, number] for field in (opened, first, last, total, kept)])
                segment = self._end if ends[row, number] else self._begin
                events[row].append(segment(fields, number))
        after = np.stack([opened, first, last, total, kept, held, summed], axis=2)  # [N, L, FIELDS]
        for memory, labels in zip(memories, after, strict=True):
            memory.labels = labels.copy()

    def _begin(self, fields: NDArray[np.float64], label: int) -> Segment:
        return Segment("begin", self.options.labels[label], self._at(fields[FIRST]), None, _confidence(fields))

    def _end(self, fields: NDArray[np.float64], label: int) -> Segment:
        end = self._at(fields[LAST] + 1)
        return Segment("end", self.options.labels[label], self._at(fields[FIRST]), end, _confidence(fields))

    def _answer(self, kind: str, memory: ClassifyMemory) -> Answer:
        scores, weights = memory.last, memory.last
        if self.options.mode == "running":
            table = memory.labels
            weights = np.where(table[:, OPEN] == 2, 1.0 + memory.last, 0.0)
            if kind == "final":
                scores, weights = table[:, SUM] / memory.steps, table[:, HELD]
        label = self.options.labels[int(weights.argmax())] if weights.any() else None
        named = {name: round(float(p), 4) for name, p in zip(self.options.labels, scores, strict=True)}
        return Answer(kind, label, 0.0, self._at(memory.steps), named)

    def _at(self, step: float) -> float:
        """Seconds since the start of the stream at ``step``, corrected by the model's delay."""
        return round(max(0.0, float(step) - self.options.delay_steps) * self.step_seconds, 3)


def _confidence(fields: NDArray[np.float64]) -> float:
    """The mean probability from a segment's first step to its last."""
    return round(float(fields[KEPT] / (fields[LAST] - fields[FIRST] + 1)), 4)
