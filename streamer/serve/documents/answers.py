"""The schemas of HTTP answers and bodies, for the OpenAPI document; tests check real answers against them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from streamer.serve.documents.events import NamedShape, TargetForecast
from streamer.serve.kserve.messages import MAX_ID

Count = Annotated[int, Field(ge=0)]


class ErrorAnswer(BaseModel):
    """Why the request failed, and what to do. ``position`` and ``acknowledged``: those of the stream."""

    error: str
    code: str | None = None
    message: str | None = None
    position: Count | None = None
    acknowledged: Count | None = None


class OpenAIErrorFacts(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorAnswer(BaseModel):
    """An error in OpenAI's shape."""

    error: OpenAIErrorFacts | str


class ServedModel(BaseModel):
    """A served model, and the shape of its rows. Forecasters and generators lack some of the fields."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    task: str
    licence: str
    inputs: list[NamedShape] | None = None
    conditions: list[NamedShape] | None = None
    outputs: list[NamedShape] | None = None
    digest: str | None = None


class OpenAIModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ServedModels(BaseModel):
    """``object`` and ``data``: the models once more, in the shape for OpenAI's clients."""

    models: list[ServedModel]
    object: Literal["list"] | None = None
    data: list[OpenAIModel] | None = None


class StreamPlace(BaseModel):
    """The position and state of a stream. ``age_seconds``: since its last row, or since it fell asleep."""

    stream: str
    model: str
    position: Count
    acknowledged: Count
    seq: Count
    state: str
    age_seconds: float


class ListedStream(BaseModel):
    """As :class:`StreamPlace`; for a stream that can't be read, the reason."""

    stream: str
    state: str
    owner: str | None = None
    model: str | None = None
    position: Count | None = None
    acknowledged: Count | None = None
    seq: Count | None = None
    age_seconds: float | None = None
    error: str | None = None


class StreamList(BaseModel):
    """``after``: asks for the next page."""

    sessions: list[ListedStream]
    after: str | None = None


class RowBatch(BaseModel):
    """Rows of a model: ``values`` of one input, or ``inputs`` by name. A new stream takes ``options`` and
    ``conditions``."""

    model_config = ConfigDict(extra="forbid")

    values: list[Any] | None = None
    inputs: dict[str, Any] | None = None
    options: dict[str, Any] = {}
    conditions: dict[str, Any] = {}


class BroughtStream(BaseModel):
    stream: str
    model: str
    position: Count
    seq: Count


class BroughtSensor(BaseModel):
    sensor: str


class SensorNames(BaseModel):
    """``after``: asks for the next page."""

    streams: list[str]
    after: str | None = None


class SensorState(BaseModel):
    """The last reading of a sensor, its forecast and scores; for a model of several targets by target."""

    model_config = ConfigDict(extra="allow")

    stream: str
    time: float
    step: float | None
    targets: dict[str, TargetForecast] | None = None


class TakenReadings(BaseModel):
    """``taken``: number of readings that are on the disk; ``refused``: number that was left out; ``errors``: why."""

    taken: Count
    refused: Count
    late: Count | None = None
    duplicate: Count | None = None
    left_out: list[str] | None = None
    errors: list[str] | None = None


class MoveWish(BaseModel):
    """``token``: for the other daemon."""

    to: Annotated[str, Field(pattern="^https?://[^/?#]+/?$")]
    token: str | None = None


class MovedKind(BaseModel):
    """``left``: names of what stays here, each with the reason."""

    moved: Count
    left: dict[str, str]


class MovedAnswer(BaseModel):
    streams: MovedKind
    sensors: MovedKind


class ReloadedModel(BaseModel):
    model_config = ConfigDict(extra="allow")

    outcome: str


class ReloadAnswer(BaseModel):
    models: dict[str, ReloadedModel]


class InfluxHealth(BaseModel):
    name: str
    message: str
    status: Literal["pass", "fail"]
    checks: list[Any]
    version: str


class InfluxVersion(BaseModel):
    version: str


class InfluxResults(BaseModel):
    results: list[dict[str, Any]]


class InferServer(BaseModel):
    name: str
    version: str
    extensions: list[str]


class InferTensor(BaseModel):
    """``data``: nested or flat lists, in row-major order; or none, and ``parameters.binary_data_size`` bytes follow the
    JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class WantedTensor(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class InferBody(BaseModel):
    """KServe's request. ``parameters``: ``sequence_id``, ``sequence_start`` and ``sequence_end`` say which stream."""

    id: Annotated[str, Field(max_length=MAX_ID)] = ""
    parameters: dict[str, Any] = {}
    inputs: list[InferTensor]
    outputs: list[WantedTensor] = []


class InferResult(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[InferTensor]


class InferModel(BaseModel):
    """Shapes: of one chunk, with -1 for the batch."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[InferTensor]
    outputs: list[InferTensor]


class InferListing(BaseModel):
    name: str
    version: str
    state: str


class TranscriptAnswer(BaseModel):
    """OpenAI's answer; the other fields with ``response_format`` ``verbose_json``."""

    model_config = ConfigDict(extra="allow")

    text: str


class ChartFiles(BaseModel):
    """``script``: the chart library's file below ``/pages/``, if the extra ``pages`` is installed. ``styles``: ids of
    style elements that it looks for."""

    script: str | None
    styles: list[str]


class EngineSample(BaseModel):
    labels: dict[str, str]
    value: float | None


class EngineHistogram(BaseModel):
    """``buckets``: cumulative counts by upper bound."""

    labels: dict[str, str]
    buckets: dict[str, float]
    sum: float | None = None
    count: float | None = None


class EngineNumbers(BaseModel):
    """Families of the metrics page, without their prefix ``streamer_``."""

    metrics: dict[str, list[EngineSample]]
    histograms: dict[str, list[EngineHistogram]]


class ListedSensor(BaseModel):
    """``mase`` and ``coverage``: of the last readings, over all steps ahead; ``null``: not known yet."""

    stream: str
    target: str
    model: str
    time: float
    value: float | None
    step: float | None
    readings: Count
    anomaly: float | None
    drift: float | None
    mase: float | None
    coverage: float | None


class SensorList(BaseModel):
    """``total``: number of all sensors; ``matching``: number that the search found; ``sensors``: one page of these."""

    total: Count
    matching: Count
    sensors: list[ListedSensor]


class PastColumns(BaseModel):
    """Past readings, the oldest first. ``low``, ``middle``, ``high``: the forecast one step before each reading."""

    times: list[float | None]
    values: list[float | None]
    low: list[float | None]
    middle: list[float | None]
    high: list[float | None]
    anomalies: list[float | None]


class SensorPast(BaseModel):
    stream: str
    model: str
    levels: list[str]
    targets: dict[str, PastColumns]
