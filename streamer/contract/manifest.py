"""The contract between export and daemon: one JSON document inside the ONNX file.

A model file carries, under the key ``streamer.manifest`` of its ``metadata_props``, everything the daemon needs to run
it: inputs, outputs, state tensors as pairs of input and output (by name, never by position), task and options,
provenance, and a golden example with which the file can be tested on any machine. ``export/`` writes it, ``streamer/``
reads it; nothing else connects the two.

Units: a *step* is one row of the first output's time axis; a *chunk* is what one call of the model consumes. Shapes
never include the batch axis, which is axis 0 of every tensor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from streamer.contract.packed import (
    MAX_MODEL_BYTES,
    MAX_UNPACKED_BYTES,
    ManifestError,
    ManifestPart,
    Packed,
    bytes_of,
    packed_bytes,
)

__all__ = [
    "KEY",
    "MAX_MODEL_BYTES",
    "MAX_UNPACKED_BYTES",
    "SCHEMA",
    "Condition",
    "Golden",
    "Input",
    "Manifest",
    "ManifestError",
    "Output",
    "Packed",
    "Provenance",
    "State",
    "StreamInput",
    "Tensor",
]

KEY = "streamer.manifest"
SCHEMA = 1

Dtype = Literal["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]
Task = Literal["transcribe", "forecast", "classify", "generate", "enhance", "rewrite", "raw"]
Axis = Annotated[int, Field(ge=1)]
#: Problems of a manifest in an error message, at most.
MAX_PROBLEMS = 20


class Tensor(ManifestPart):
    """A small array by value (golden examples): little-endian, row-major, batch axis included."""

    dtype: Dtype
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data: Packed

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return cls.model_validate(
            {"dtype": array.dtype.name, "shape": array.shape, "data": Packed.pack(little.tobytes())}
        )

    def array(self) -> NDArray[Any]:
        raw = self.data.unpack()
        try:
            little = np.frombuffer(raw, dtype=np.dtype(self.dtype).newbyteorder("<"))
            return little.reshape(self.shape).astype(self.dtype)
        except ValueError as error:
            raise ManifestError(f"a golden tensor does not have its declared shape {self.shape}: {error}") from error


class StreamInput(ManifestPart):
    """An input tensor with new rows in every chunk. ``chunk_shape``: without batch, time first.

    ``limits``: lowest and highest value of each channel, for an integer input that holds settings or tokens instead of
    a signal; the graph clips other values into this range.
    """

    name: str
    dtype: Dtype
    chunk_shape: tuple[Axis, ...]
    limits: tuple[tuple[int, int], ...] | None = None

    @model_validator(mode="after")
    def _has_rows(self) -> StreamInput:
        if not self.chunk_shape:
            raise ValueError("chunk_shape needs at least the time axis")
        if self.limits is not None:
            kind = np.iinfo(self.dtype) if np.dtype(self.dtype).kind in "iu" else None
            channels = self.chunk_shape[1:] or (1,)
            if kind is None or channels != (len(self.limits),):
                raise ValueError(
                    "limits are for an integer input [steps] or [steps, channels], a pair for each channel"
                )
            if any(not kind.min <= low <= 0 <= high <= kind.max for low, high in self.limits):
                raise ValueError(f"limits of {self.dtype} must hold 0, the setting of every padded step")
        return self


class Input(StreamInput):
    """The model's first input, which has the clock.

    ``chunk_shape`` is for example ``(4800,)`` for 300 ms of PCM at 16 kHz. Exactly one of ``sample_rate`` (Hz) and
    ``step_seconds`` (nominal time between readings, ``0`` if any) says how the chunk relates to time.
    ``lowest_rate``: lowest sample rate in Hz of accepted recordings, whose upper band is then missing; only for a model
    trained on such recordings, default ``sample_rate``.
    """

    sample_rate: Annotated[int, Field(ge=1)] | None = None
    step_seconds: Annotated[float, Field(ge=0)] | None = None
    lowest_rate: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_clock(self) -> Input:
        if (self.sample_rate is None) == (self.step_seconds is None):
            raise ValueError("give either sample_rate or step_seconds")
        if self.lowest_rate is not None and self.lowest_rate > (self.sample_rate or 0):
            raise ValueError("lowest_rate is at most the sample_rate")
        return self


class Condition(ManifestPart):
    """An input that is set once for a stream, zeros unless it is given: a speaker vector, a language. ``shape``:
    without batch. ``limits``: lowest and highest value, for integers; a stream that asks for another is refused."""

    name: str
    dtype: Dtype
    shape: tuple[Axis, ...]
    limits: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _limits_hold_zero(self) -> Condition:
        if self.limits is not None:
            low, high = self.limits
            kind = np.iinfo(self.dtype) if np.dtype(self.dtype).kind in "iu" else None
            if kind is None or not kind.min <= low <= 0 <= high <= kind.max:
                raise ValueError("limits are for integers, and must hold 0, the value of a stream that gives none")
        return self

    @property
    def nbytes(self) -> int:
        return bytes_of(self.dtype, self.shape)


class State(ManifestPart):
    """One memory tensor: the graph's input ``in`` and its output ``out``, alike, zero bytes at the start."""

    in_: Annotated[str, Field(alias="in")]
    out: str
    dtype: Dtype
    shape: tuple[Axis, ...]

    @property
    def nbytes(self) -> int:
        return bytes_of(self.dtype, self.shape)


class Output(ManifestPart):
    name: str
    dtype: Dtype
    shape: tuple[Axis, ...]


class Golden(ManifestPart):
    """A tiny recorded run from zero state: batch 1, chunk after chunk, to be met within the chunk law's tolerance.

    ``chunks`` are those of the first input, ``more_inputs`` those of each further one.
    """

    chunks: tuple[Tensor, ...]
    outputs: dict[str, tuple[Tensor, ...]]
    more_inputs: dict[str, tuple[Tensor, ...]] = Field(default_factory=dict)
    conditions: dict[str, Tensor] = Field(default_factory=dict)


class Provenance(ManifestPart):
    """Where the weights come from, for users and ``streamer models``.

    ``parameters``: trained numbers, where the exporter counted them; then ``receptive_field`` is how many rows of the
    input (samples, readings) an output depends on, absent where the memory has no end.
    ``company``: bound on the deviation of a row in a batch from the same row alone, for adopted graphs whose kernels
    round differently with the batch size; default: the law's bound.
    """

    data: str
    revision: str
    created: str = ""
    tolerance: float
    company: Annotated[float, Field(gt=0, le=1e-3)] | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    notes: str = ""
    parameters: Annotated[int, Field(ge=0)] | None = None
    receptive_field: Annotated[int, Field(ge=1)] | None = None


class Manifest(ManifestPart):
    """The whole document.

    ``more_inputs`` have the clock of ``input``: as many rows a chunk. ``conditions`` are set once for a stream.
    ``latency`` and ``flush`` are in steps: how many steps an output lags behind its input, and how many of
    padding push the last result out at the end of a stream.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: str
    task: Task
    licence: str
    description: str = ""
    input: Input
    more_inputs: tuple[StreamInput, ...] = ()
    conditions: tuple[Condition, ...] = ()
    states: tuple[State, ...]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    latency: Annotated[int, Field(ge=0)]
    flush: Annotated[int, Field(ge=0)]
    max_batch: Annotated[int, Field(ge=1)]
    options: dict[str, Any]
    provenance: Provenance
    golden: Golden

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        ins = [i.name for i in self.inputs] + [c.name for c in self.conditions] + [s.in_ for s in self.states]
        outs = [*(o.name for o in self.outputs), *(s.out for s in self.states)]
        for kind, names in (("input", ins), ("output", outs)):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise ValueError(f"{kind} names used twice: {', '.join(twice)}")
        for more in self.more_inputs:
            if more.chunk_shape[0] != self.chunk:
                raise ValueError(
                    f"input {more.name!r} has {more.chunk_shape[0]} rows a chunk, {self.input.name!r} has "
                    f"{self.chunk}: all inputs of a stream have one clock"
                )
        steps = self.outputs[0].shape[0]
        if self.input.chunk_shape[0] % steps:
            raise ValueError(
                f"a chunk of {self.input.chunk_shape[0]} samples can't be shared out evenly to {steps} steps"
            )
        if set(self.golden.outputs) != {o.name for o in self.outputs}:
            raise ValueError("the golden example does not cover every output")
        if set(self.golden.more_inputs) != {i.name for i in self.more_inputs}:
            raise ValueError("the golden example does not cover every input")
        if set(self.golden.conditions) != {c.name for c in self.conditions}:
            raise ValueError("the golden example does not cover every condition")
        return self

    # -- derived -----------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[StreamInput, ...]:
        """All inputs that a chunk brings rows of; the first one has the clock."""
        return (self.input, *self.more_inputs)

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """One step of input along time, over all :attr:`inputs`: of a single input of numbers its plain dtype, else a
        packed structure of one field an input, little-endian."""
        first = self.input
        if not self.more_inputs and len(first.chunk_shape) == 1:
            return np.dtype(first.dtype).newbyteorder("<")
        return np.dtype([(i.name, np.dtype(i.dtype).newbyteorder("<"), i.chunk_shape[1:]) for i in self.inputs])

    def fields(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """``rows`` [...] of :attr:`row_dtype` as an array for each input, without a copy."""
        if rows.dtype.names is None:
            return {self.input.name: rows}
        return {i.name: rows[i.name] for i in self.inputs}

    def carry(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The new states among ``outputs``, by the names under which the next call takes them."""
        return {pair.in_: outputs[pair.out] for pair in self.states}

    @property
    def chunk(self) -> int:
        """Length of a chunk along time, in samples (or readings)."""
        return self.input.chunk_shape[0]

    @property
    def steps(self) -> int:
        """Output steps that one chunk gives."""
        return self.outputs[0].shape[0]

    @property
    def hop(self) -> int:
        """Samples (or readings) behind one output step."""
        return self.chunk // self.steps

    @property
    def chunk_seconds(self) -> float:
        """Real time that one chunk stands for; 0 where the model has no clock of its own."""
        if self.input.sample_rate is not None:
            return self.chunk / self.input.sample_rate
        return self.chunk * (self.input.step_seconds or 0.0)

    @property
    def state_bytes(self) -> int:
        """Bytes of memory that one stream takes, its conditions included."""
        return sum(state.nbytes for state in self.states) + sum(given.nbytes for given in self.conditions)

    @property
    def chunk_bytes(self) -> int:
        """Bytes that one row of a batch takes while it is run: a chunk, outputs, and states on both sides."""
        arrays = [(i.dtype, i.chunk_shape) for i in self.inputs] + [(o.dtype, o.shape) for o in self.outputs]
        return sum(bytes_of(*array) for array in arrays) + self.state_bytes + sum(s.nbytes for s in self.states)

    @property
    def packed_bytes(self) -> int:
        """Size of all packed parts once they are unpacked."""
        return packed_bytes(self.options, self.golden.model_dump())

    # -- to and from the file ------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The manifest as JSON, without empty fields."""
        own = {name: True for name in ("more_inputs", "conditions") if not getattr(self, name)}
        golden = {name: True for name in ("more_inputs", "conditions") if not getattr(self.golden, name)}
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude={**own, "golden": golden})

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and check. Raises :class:`ManifestError` with every problem named, one a line."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:  # also: numbers of thousands of digits, brackets in brackets
            raise ManifestError(f"the manifest is not JSON ({str(error)[:200]}): export the model again") from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ManifestError(
                f"the manifest has schema {schema!r:.40}, this build reads schema {SCHEMA}: "
                "export the model again, or install the streamer that it was made for"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "\n".join(
                f"  {'.'.join(str(part)[:80] for part in e['loc']) or 'manifest'}: {e['msg'][:400]}"
                for e in error.errors(include_input=False, include_url=False)[:MAX_PROBLEMS]
            )
            raise ManifestError(f"the manifest does not fit schema {SCHEMA}:\n{problems}") from error
        except ValueError as error:  # a text that is not Unicode
            raise ManifestError(f"the manifest can't be read ({error}): export the model again") from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Manifest:
        """From an ONNX file's metadata map. Raises :class:`ManifestError` if the key is missing."""
        if KEY not in metadata:
            raise ManifestError(
                f"this ONNX file has no {KEY}: it was not exported for streamer "
                "(streamer adopt makes such a file of it, streamer export of the PyTorch module)"
            )
        return cls.from_json(metadata[KEY])
