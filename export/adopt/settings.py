"""Settings for what can't be inferred from names and shapes, in a TOML file. Every table and every line is optional."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.adopt.report import AdoptionError, listed

__all__ = [
    "AdoptSettings",
    "Described",
    "Host",
    "OutputSettings",
    "RecogniserSettings",
    "SourceSettings",
    "read_settings",
]

Count = Annotated[int, Field(ge=1)]
Number = bool | int | float


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Described(_Table):
    """The manifest's description of the model. ``latency`` and ``flush`` in steps of the first output."""

    name: str | None = None
    version: str = "1"
    licence: str = "unknown"
    description: str = ""
    data: str = "unknown"
    latency: Annotated[int, Field(ge=0)] | None = None
    flush: Annotated[int, Field(ge=0)] | None = None


class SourceSettings(_Table):
    """The input that takes the stream.

    ``sample_rate`` (Hz): the input is sound, so the adopted file takes 16-bit PCM and multiplies it with ``scale``
    (default: 1/32768 for a float input, else 1). Without it, ``step_seconds`` is the time between rows, 0: any.
    ``chunk``: samples or rows that are new in each call; ``overlap``: the last samples or rows of the call before that
    are repeated before them. ``batch`` and ``time``: axes of the foreign tensor. ``conditions``: other inputs that a
    client sets once for a stream, such as a speaker's vector; zeros by default.
    """

    name: str | None = None
    sample_rate: Count | None = None
    step_seconds: Annotated[float, Field(ge=0)] = 0.0
    scale: float | None = None
    chunk: Count | None = None
    overlap: Annotated[int, Field(ge=0)] | None = None
    batch: Annotated[int, Field(ge=0)] | None = None
    time: Annotated[int, Field(ge=0)] | None = None
    conditions: tuple[str, ...] = ()


class OutputSettings(_Table):
    """``keep``: only these outputs, in this order; or ``drop``: all but these. ``time``: the time axis of a foreign
    output, or ``"none"``: a call gives one result."""

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    time: dict[str, Annotated[int, Field(ge=0)] | Literal["none"]] = {}


class Host(_Table):
    """Transforms in the host's code around the graph: frames of ``fft`` samples, every ``hop`` samples, in and out.

    ``window``: of the analysis, and of the synthesis by overlap-add (there divided by the sum of its squares);
    ``none``: frames are added up unweighted. ``feature``: the graph's input for a frame. ``result``: the graph's output
    for a frame. The shapes decide both if they are not given.
    ``chain``: a second file, which takes each frame of sound that the first one gives.
    """

    fft: Annotated[int, Field(ge=2, le=2**16, multiple_of=2)]
    hop: Count
    window: Literal["none", "hann", "sqrt-hann", "hamming"] = "hann"
    feature: Literal["complex", "magnitude", "power", "frame"] | None = None
    result: Literal["mask", "spectrum", "frame", "none"] | None = None
    chain: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Host:
        if self.fft % self.hop:
            raise ValueError(f"a hop of {self.hop} does not divide the fft of {self.fft}")
        return self


class RecogniserSettings(_Table):
    """Settings of a recogniser's folder. ``frontend``: the features of the training, if not the usual ones of the
    family. ``int8``: take the quantised file of a graph that exists twice. ``early``: results come as early as
    possible, as if silence preceded the stream; else every call sees the same window as in sherpa-onnx, and results
    come later."""

    frontend: Literal["kaldi", "nemo", "wenet"] | None = None
    int8: bool = False
    early: bool = False


class Recurrences(_Table):
    """``restarts``: names of recurrent nodes that may be reset in every call, as in the model's own host."""

    restarts: tuple[str, ...] = ()


class AdoptSettings(_Table):
    """The whole file. ``state``: input -> output. ``constants``: input -> value. ``counters``: input without an output
    -> its increment in each call. ``dims``: symbol of a dynamic size -> size. ``batch``: state -> its batch axis.

    ``start``: initial value of a state, or of an overlap (by the name of its stream): a number, a list of numbers in
    row-major order, or a ``.npy`` file. ``streams``: further inputs with as many rows as the first -> time axis.
    """

    model: Described = Described()
    input: SourceSettings = SourceSettings()
    outputs: OutputSettings = OutputSettings()
    state: dict[str, str] = {}
    constants: dict[str, Number | list[Number]] = {}
    counters: dict[str, int] = {}
    start: dict[str, Number | list[Number] | str] = {}
    streams: dict[str, Annotated[int, Field(ge=0)]] = {}
    recurrence: Recurrences = Recurrences()
    dims: dict[str, Count] = {}
    batch: dict[str, Annotated[int, Field(ge=0)]] = {}
    host: Host | None = None
    recogniser: RecogniserSettings = RecogniserSettings()
    task: dict[str, Any] = {"name": "raw"}

    def named(self) -> set[str]:
        """All names of tensors in the settings."""
        names = {*self.state, *self.state.values(), *self.constants, *self.counters, *self.start, *self.batch}
        names |= {*self.outputs.keep, *self.outputs.drop, *self.outputs.time, *self.streams, *self.input.conditions}
        return names | ({self.input.name} if self.input.name is not None else set())


def read_settings(path: Path | None) -> AdoptSettings:
    """Read a TOML file; ``None`` gives the defaults. Raises :class:`AdoptionError` with every invalid line."""
    if path is None:
        return AdoptSettings()
    try:
        settings = AdoptSettings.model_validate(tomllib.loads(path.read_text("utf-8")), strict=False)
        start = {k: str(path.parent / v) if isinstance(v, str) else v for k, v in settings.start.items()}
        return settings.model_copy(update={"start": start})
    except OSError as error:
        raise AdoptionError(f"can't read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AdoptionError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        lines = "; ".join(_said(entry["loc"], entry["type"], entry["msg"]) for entry in error.errors())
        raise AdoptionError(f"{path} does not fit (docs/adopt.md has an example): {lines}") from error


def _said(place: tuple[int | str, ...], kind: str, message: str) -> str:
    """What is wrong at a place of the file. An unknown name comes with the nearest known one, or with all of them."""
    where = ".".join(map(str, place)) or "file"
    if kind != "extra_forbidden":
        return f"{where}: {message}"
    table: type[BaseModel] = AdoptSettings
    for part in place[:-1]:
        kinds = (table.model_fields[str(part)].annotation, *get_args(table.model_fields[str(part)].annotation))
        table = next(one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel))
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {listed(known, 20)}"
    return f"{'table or line' if len(place) == 1 else 'line'} {where} is unknown: {hint}"
