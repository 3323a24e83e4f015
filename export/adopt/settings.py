"""Settings for what can't be guessed from names and shapes, in a TOML file; every table and every line is optional."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.adopt.report import AdoptionError

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
    """The model's description for the manifest. ``latency`` and ``flush`` in steps of the first output."""

    name: str | None = None
    version: str = "1"
    licence: str = "unknown"
    description: str = ""
    data: str = "unknown"
    latency: Annotated[int, Field(ge=0)] | None = None
    flush: Annotated[int, Field(ge=0)] | None = None


class SourceSettings(_Table):
    """The input that takes the stream.

    ``sample_rate`` (Hz): it is sound, so the adopted file takes 16-bit PCM, times ``scale`` (1/32768 where the foreign
    input is float, else 1). Without it ``step_seconds`` is the time between rows, 0: any.
    ``chunk``: samples or rows that are new in each call; ``overlap``: how many of the last call come before them.
    ``batch`` and ``time``: axes of the foreign tensor. ``conditions``: other inputs that a client sets once for a
    stream, such as a speaker's vector; zeros unless it does.
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
    """``keep``: these alone and in this order, or ``drop``. ``time``: the axis of steps in the foreign tensor, or
    ``"none"``: it is one result a call."""

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    time: dict[str, Annotated[int, Field(ge=0)] | Literal["none"]] = {}


class Host(_Table):
    """The work of the host's code around the graph: frames of ``fft`` samples, ``hop`` apart, in and out.

    ``window``: on the way in, and where the spectra are added up again, on the way out (then divided by the sum of its
    squares); ``none`` adds up what comes out as it is. ``feature``: what the graph takes of a frame. ``result``: what
    the graph gives back. Both follow from the shapes where they aren't said.
    ``chain``: a second file that takes the sound of each frame behind the first one.
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
    """Of a folder. ``frontend``: whose features it was trained on, if not its family's own. ``int8``: of a graph that
    is there twice, the quantised one. ``early``: results as soon as can be, as if there were silence before the stream;
    else every call sees what it would see in sherpa-onnx, and results wait for whole calls."""

    frontend: Literal["kaldi", "nemo", "wenet"] | None = None
    int8: bool = False
    early: bool = False


class Recurrences(_Table):
    """``restarts``: nodes that are reset in every call, as their own host does it."""

    restarts: tuple[str, ...] = ()


class AdoptSettings(_Table):
    """The whole file. ``state``: input to output. ``counters``: an input that has no output, to what each call adds.

    ``start``: what a state, or an overlap by the name of its stream, begins with: a number, a list of them in the order
    of memory, or a ``.npy`` file. ``streams``: inputs beside the first that bring as many rows, to their time axis.
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
        """Tensors that it names."""
        said = {*self.state, *self.state.values(), *self.constants, *self.counters, *self.start, *self.batch}
        said |= {*self.outputs.keep, *self.outputs.drop, *self.outputs.time, *self.streams, *self.input.conditions}
        return said | ({self.input.name} if self.input.name is not None else set())


def read_settings(path: Path | None) -> AdoptSettings:
    """Raises :class:`AdoptionError` with every line that is wrong."""
    if path is None:
        return AdoptSettings()
    try:
        said = AdoptSettings.model_validate(tomllib.loads(path.read_text("utf-8")), strict=False)
        beside = {k: str(path.parent / v) if isinstance(v, str) else v for k, v in said.start.items()}
        return said.model_copy(update={"start": beside})
    except OSError as error:
        raise AdoptionError(f"can't read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AdoptionError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise AdoptionError(f"{path} does not fit (docs/adopt.md has an example): {lines}") from error
