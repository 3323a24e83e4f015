"""The schemas of the events that a client gets, of every task and of the stream itself, for both documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from streamer.likeness import KINDS
from streamer.serve.documents.components import Components, JsonSchema
from streamer.serve.stream.protocol import CLOSE_CODES
from streamer.tasks.base import Forecast, Transcription
from streamer.tasks.classify import Answer, Segment
from streamer.tasks.generate import Note, Text
from streamer.tasks.rewrite import Rewritten

__all__ = ["GENERATED", "STREAM", "NamedShape", "SensorForecast", "generated_events", "stream_events"]

Seq = Annotated[int, Field(ge=1, description="number in the stream; a client that resumes names the last it got")]
Position = Annotated[int, Field(ge=0, description="rows of the stream, in the client's own sample rate")]
Count = Annotated[int, Field(ge=0)]


class NamedShape(BaseModel):
    """An input, a condition or an output of a model. ``shape``: of one row, or of an output's whole chunk."""

    name: str
    dtype: str
    shape: list[int]


class ReadyEvent(BaseModel):
    """The stream is open: send rows from ``position`` on."""

    type: Literal["ready"]
    stream: str
    model: str
    task: str
    sample_rate: int | None = None
    output_rate: int | None = None
    chunk_seconds: float | None
    latency_seconds: float | None
    position: Position
    seq: Count
    resumed: bool
    inputs: list[NamedShape]
    conditions: list[NamedShape]
    outputs: list[NamedShape]
    row_bytes: int
    chunk_rows: int
    latency_rows: int


class OutputsEvent(BaseModel):
    """The outputs of one chunk. ``outputs``: nested lists by name. Or ``shapes``: then a binary frame with the tensors
    follows, little-endian, one after the other."""

    type: Literal["outputs"]
    start: Position
    end: Position
    steps: Count
    outputs: dict[str, Any] | None = None
    shapes: dict[str, list[int]] | None = None
    seq: Seq | None = None


class SoundEvent(BaseModel):
    """Sound that a stream gives back; a binary frame of PCM (int16, little-endian) follows."""

    type: Literal["audio"]
    start: float
    end: float
    samples: Count
    seq: Seq | None = None


class AckEvent(BaseModel):
    """Everything before ``position`` is on the disk."""

    type: Literal["ack"]
    position: Position


class MarkerEvent(BaseModel):
    """Everything before ``position`` is decoded."""

    type: Literal["marker"]
    id: str
    position: Position
    seq: Seq


class GapEvent(BaseModel):
    """Rows were dropped, and the state was reset."""

    type: Literal["gap"]
    position: Position
    dropped: Count
    seq: Seq


class WarningEvent(BaseModel):
    """The sound was taken, but looks like another format."""

    type: Literal["warning"]
    code: Literal["looks_like"]
    format: str = Field(json_schema_extra={"enum": [*sorted(KINDS)]})
    message: str


class ErrorEvent(BaseModel):
    """The stream or the connection ends. ``url``: where the stream goes on."""

    type: Literal["error"]
    code: str = Field(json_schema_extra={"enum": [*sorted(CLOSE_CODES)]})
    message: str
    retry_after: float | None = None
    url: str | None = None


class RestartEvent(BaseModel):
    """The daemon goes down: connect again, and send everything after ``position``."""

    type: Literal["restart"]
    position: Position
    retry_after: float


class EndEvent(BaseModel):
    """All rows were run; this is the last event."""

    type: Literal["end"]
    position: Position
    seq: Seq | None = None


class SamplesEvent(BaseModel):
    """Sound that a generator wrote: int16 PCM, little-endian, in base64."""

    type: Literal["audio"]
    position: Position
    pcm: str
    log_prob: float


class TargetForecast(BaseModel):
    """``quantiles``: from levels (such as ``"0.05"``) to the next readings, ascending; empty before the first forecast.
    ``anomaly``: the probability of a reading as far away as this one."""

    value: float | None
    quantiles: dict[str, list[float | None]]
    anomaly: float | None
    drift: float | None


class SensorForecast(BaseModel):
    """A reading, and the forecast after it; for a model of several targets by target."""

    type: Literal["forecast"]
    model: str
    stream: str
    time: float
    step: float | None
    value: float | None = None
    quantiles: dict[str, list[float | None]] | None = None
    anomaly: float | None = None
    drift: float | None = None
    targets: dict[str, TargetForecast] | None = None


#: Events of the stream itself, whatever its task is.
STREAM: tuple[type[BaseModel], ...] = (
    *(ReadyEvent, AckEvent, MarkerEvent, GapEvent, WarningEvent, ErrorEvent, RestartEvent, EndEvent),
    *(OutputsEvent, SoundEvent),
)
#: Events of a generator.
GENERATED: tuple[type[BaseModel], ...] = (SamplesEvent, EndEvent, RestartEvent, ErrorEvent)


def stream_events(components: Components) -> list[JsonSchema]:
    """References to the events of streams."""
    found = [
        components.event(Transcription, ("partial", "final"), often=("stable", "revised")),
        components.event(Answer, ("partial", "final")),
        components.event(Segment, ("segment",)),
        components.event(Rewritten, ("rewritten",)),
        components.event(Forecast, ("forecast",), often=("target",)),
        *map(components.of, STREAM),
    ]
    word = components.schemas["Word"]
    word["required"] = [name for name in word["properties"] if name != "written"]
    components.schemas["Transcription"]["properties"]["revised"] = {
        "type": "boolean",
        "description": "a final that waited for the second pass, and whether it was heard again",
    }
    return found


def generated_events(components: Components) -> list[JsonSchema]:
    """References to the events of generators."""
    return [
        components.event(Text, ("text",), numbered=False),
        components.event(Note, ("note",), numbered=False),
        *map(components.of, GENERATED),
    ]
