"""The protocol of ``/v1/stream``, without any I/O: frames in, frames out, and the order of frames.

Everything that decides whether a message is legal lives here; ``connection.py`` only acts on what :class:`Dialogue`
returns. Binary frames pass through untouched (they are the hot path); control frames are small JSON objects, checked
by pydantic.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from streamer.faults import fault, shown
from streamer.json_words import json_trouble
from streamer.tasks.raw import plain
from streamer.whole import whole

__all__ = [
    "CLOSE_CODES",
    "STREAM_PATH",
    "Binary",
    "Dialogue",
    "End",
    "Frame",
    "Marker",
    "Resume",
    "Rows",
    "Start",
    "WireError",
    "encode",
    "frames",
    "load",
    "parse_control",
]

STREAM_PATH = "/v1/stream"
#: WebSocket close code for every error code; 4xxx are ours, and resemble the HTTP status. Anything else is 1011.
CLOSE_CODES: Mapping[str, int] = {
    "audio_as_text": 1003,
    "bad_json": 1007,
    "bad_frame": 1007,
    "bad_order": 1002,
    "bad_audio": 1007,
    "not_pcm": 1007,
    "bad_rows": 1007,
    "too_long": 1009,
    "too_many_markers": 1008,
    "options": 4400,
    "rate": 4400,
    "key": 4400,
    "conflict": 4409,
    "unknown_model": 4404,
    "unknown_stream": 4404,
    "snapshot": 4404,
    "start_timeout": 4408,
    "not_reading": 4408,
    "taken_over": 4409,
    "duplicate": 4409,
    "deleted": 4410,
    "idle_timeout": 4410,
    "model_failed": 1011,
    "capacity": 1013,
    "overload": 1013,
    "store": 1013,
    "quota": 1013,
    "scope": 1008,
    "starting": 1013,
    "draining": 1012,
    "moved": 4301,
    "evicted": 4410,
}


#: Fields that hold many numbers.
ROWS = frozenset({"values", "inputs", "conditions"})
KNOWN = 'one of {"type": "start"}, "resume", "rows", "marker" and "end" is expected'


class WireError(Exception):
    """An error that is sent to the client before its connection closes. ``message`` says what to do about it."""

    def __init__(self, code: str, message: str, retry_after: float | None = None, url: str | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.url = url

    @property
    def close_code(self) -> int:
        return CLOSE_CODES.get(self.code, 1011)

    def to_dict(self) -> dict[str, Any]:
        frame: dict[str, Any] = {"type": "error", "code": self.code, "message": self.message}
        if self.retry_after is not None:
            frame["retry_after"] = self.retry_after
        if self.url is not None:
            frame["url"] = self.url
        return frame


class _Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Start(_Frame):
    """A new stream, or the one that has this ``key``. ``sample_rate`` in Hz, of sound that is not at the model's rate;
    ``model`` may be left out: then it is the first that is served. ``seq``: the last event that the client has seen of
    a stream with a key; without it no event is sent again. ``conditions``: nested lists by name. ``outputs``: how
    tensors come back."""

    type: Literal["start"]
    model: Annotated[str, Field(max_length=200)] | None = None
    sample_rate: Annotated[int, Field(ge=1, le=768_000)] | None = None
    key: Annotated[str, Field(max_length=1000)] | None = None
    seq: Annotated[int, Field(ge=0)] | None = None
    overflow: Literal["wait", "gap"] = "wait"
    partials: bool = True
    outputs: Literal["json", "binary"] = "json"
    options: dict[str, Any] = Field(default_factory=dict)
    conditions: dict[str, Any] = Field(default_factory=dict)


class Resume(_Frame):
    """Resumes a stream. ``seq``: the number of the last event that the client has seen, 0 for none."""

    type: Literal["resume"]
    stream: Annotated[str, Field(min_length=1, max_length=200)]
    seq: Annotated[int, Field(ge=0)] = 0
    partials: bool = True
    outputs: Literal["json", "binary"] = "json"


class Rows(_Frame):
    """Rows. ``values``: of a model with one input; ``inputs``: of any model, by input name."""

    type: Literal["rows"]
    values: list[Any] | None = None
    inputs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Rows:
        if (self.values is None) == (self.inputs is None):
            raise ValueError("give either values or inputs")
        return self


class Marker(_Frame):
    type: Literal["marker"]
    id: Annotated[str, Field(max_length=200)]


class End(_Frame):
    type: Literal["end"]


Frame = Start | Resume | Rows | Marker | End
FRAMES: Mapping[Any, type[_Frame]] = {"start": Start, "resume": Resume, "rows": Rows, "marker": Marker, "end": End}
_ADAPTER: TypeAdapter[Frame] = TypeAdapter(Annotated[Frame, Field(discriminator="type")])


def parse_control(data: bytes, limit: int) -> Frame:
    """Parse one control frame. ``limit`` in bytes; frames with rows may be longer. Raises :class:`WireError`."""
    if len(data) > limit and b'"rows"' not in data[:100]:
        raise _too_long(data, limit)
    try:
        document = load(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        hint = "text frames are JSON control frames, audio goes into binary frames (16 bit little-endian PCM)"
        code = "bad_json" if data[:1] in (b"{", b"[") else "audio_as_text"
        raise WireError(code, f"not JSON ({json_trouble(error)}): {hint}") from None
    try:
        frame = _ADAPTER.validate_python(_with_whole(document))
    except ValidationError as error:
        where = "; ".join(map(_fault, error.errors()[:5]))
        raise WireError("bad_frame", f"the control frame can't be used: {where}") from None
    if len(data) > limit and not isinstance(frame, Rows):
        raise _too_long(data, limit)
    return frame


def _with_whole(document: Any) -> Any:
    """Turn whole floats into integers, since 16000.0 is a valid rate. Rows are left unchanged: they are many, and have
    dtypes."""
    if not isinstance(document, dict):
        return document
    return {name: value if name in ROWS else whole(value) for name, value in document.items()}


def _fault(error: Mapping[str, Any]) -> str:
    """What is wrong with a frame, by the names in its JSON."""
    given, kind = error["input"], error["type"]
    if kind in ("union_tag_not_found", "model_attributes_type") and not error["loc"]:
        if isinstance(given, dict):
            return f'it has no "type": {KNOWN}'
        return f"a JSON object is expected, not {shown(given)}: {KNOWN}"
    if kind == "union_tag_invalid":
        return f"there is no frame of the type {json.dumps(given.get('type'))[:60]}: {KNOWN}"
    return fault(error, FRAMES[error["loc"][0]], error["loc"][1:], "frame")


def _too_long(data: bytes, limit: int) -> WireError:
    return WireError("too_long", f"a control frame of {len(data)} bytes, the limit is {limit} (max_control_bytes)")


def load(data: bytes) -> Any:
    """Parse JSON strictly by the standard. Raises ``ValueError``, or ``RecursionError``."""
    return _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


#: Made once: ``json.loads`` makes a decoder for every call with ``parse_constant``.
_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def encode(event: Mapping[str, Any]) -> bytes:
    """One frame for the client, as UTF-8. Raises ``ValueError`` for NaN, which JSON lacks: the error should come here,
    not in a browser."""
    text = to_json(event, inf_nan_mode="constants")
    if b"NaN" in text or b"Infinity" in text:  # in a text, or a number: the standard library decides
        return _JSON.encode(event).encode()
    return text


class Binary(bytes):
    """A binary frame among text frames."""


def frames(event: Mapping[str, Any], binary: bool = False) -> list[bytes]:
    """An event as frames for the client: a text frame. After ``audio`` its PCM follows as a :class:`Binary`; after
    ``outputs``, if ``binary``, its tensors follow one after the other, little-endian; the text has their shapes."""
    kind = event["type"]
    if kind == "audio":
        fields = {name: value for name, value in event.items() if name != "pcm"}
        return [encode(fields), Binary(base64.b64decode(event["pcm"]))]
    if kind != "outputs":
        return [encode(event)]
    if not binary:
        return [encode(plain(event))]
    tensors = event["outputs"]
    fields = {name: value for name, value in event.items() if name != "outputs"}
    fields["shapes"] = {name: list(tensor.shape) for name, tensor in tensors.items()}
    body = b"".join(np.asarray(tensor, tensor.dtype.newbyteorder("<")).tobytes() for tensor in tensors.values())
    return [encode(fields), Binary(body)]


#: Refuses NaN and infinity; takes six times as long as pydantic's. Made once: ``json.dumps`` makes one for every call.
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Dialogue:
    """The state of one connection: ``new`` until start or resume, ``open`` while rows may come, then ``ended``."""

    __slots__ = ("_limit", "state")

    def __init__(self, max_control_bytes: int):
        self._limit = max_control_bytes
        self.state: Literal["new", "open", "ended"] = "new"

    def rows(self) -> None:
        """Check that rows may come now. Raises :class:`WireError`."""
        if self.state != "open":
            raise self._order("rows")

    def control(self, data: bytes) -> Frame:
        """Parse a text frame and move on. Raises :class:`WireError`."""
        return self.follow(parse_control(data, self._limit))

    def follow(self, frame: Frame) -> Frame:
        """Check that the frame may come now, and move to the state after it. Raises :class:`WireError`."""
        opening = isinstance(frame, (Start, Resume))
        if self.state == "ended" and isinstance(frame, End):
            return frame  # said twice
        if opening != (self.state == "new") or self.state == "ended":
            raise self._order(frame.type)
        self.state = "ended" if isinstance(frame, End) else "open"
        return frame

    def _order(self, what: str) -> WireError:
        if self.state == "new":
            return WireError("bad_order", f"{what} before the stream: send a start or resume frame first")
        if self.state == "open":
            return WireError("bad_order", f"{what} on a stream that runs: one connection is one stream, open another")
        return WireError("bad_order", f"{what} after end: start a new stream on a new connection")
