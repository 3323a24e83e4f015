"""The plan of the adopted file: its graphs in order, its inputs, its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.adopt.batch import Settled
from export.adopt.layout import AxisLayout
from export.adopt.report import AdoptionError, Report, listed
from export.adopt.settings import AdoptSettings, Host
from export.adopt.spectrum import synthesis_window
from export.adopt.stream import InputStream, spectral
from streamer.contract.manifest import Input, Output, StreamInput

__all__ = ["ChainOutput", "GraphChain", "chain_of"]


@dataclass(frozen=True)
class ChainOutput:
    """An output of the adopted file. ``kind``: ``plain``, or how it becomes sound: ``mask``, ``spectrum``, ``frame``.

    ``part`` and ``source``: the graph's index, and the output's name there; ``layout``: of that output.
    """

    name: str
    part: int
    source: str
    layout: AxisLayout
    dtype: str
    kind: str = "plain"


@dataclass(frozen=True)
class GraphChain:
    """``scale``: factor of PCM samples, ``None``: the input is rows. ``host``: its transforms, if any.

    ``last``: the layout of the frames that the second graph gives, if there is one.
    """

    parts: tuple[Settled, ...]
    input: Input
    more: tuple[StreamInput, ...]
    scale: float | None
    host: Host | None
    results: tuple[ChainOutput, ...]
    last: AxisLayout | None = None

    @property
    def source(self) -> InputStream:
        """The first graph's stream."""
        return self.parts[0].part.stream

    @property
    def free(self) -> bool:
        """Whether the batch may have any size."""
        return all(settled.free for settled in self.parts)

    @property
    def sound(self) -> ChainOutput | None:
        """The result that becomes sound by overlap-add; ``None``: no result does."""
        return next((result for result in self.results if result.kind != "plain"), None)

    def output(self, result: ChainOutput) -> Output:
        """The manifest's output."""
        if result.kind == "plain":
            return Output.model_validate({"name": result.name, "dtype": result.dtype, "shape": result.layout.shape})
        return Output(name=result.name, dtype="float32", shape=(self.source.chunk,))


def chain_of(parts: Sequence[Settled], settings: AdoptSettings, report: Report) -> GraphChain:
    """The chain of graphs. Raises :class:`AdoptionError` for outputs that do not fit the contract."""
    stream, source = parts[0].part.stream, settings.input
    scale = None
    if source.sample_rate is not None:
        scale = source.scale
        if scale is None:
            scale = 1.0 if stream.dtype.startswith(("int", "uint")) else 1 / 32768
        elif scale != 1 and stream.dtype.startswith(("int", "uint")):
            raise AdoptionError(f"[input] scale = {scale:g}: the input {stream.name} takes whole numbers, unscaled PCM")
    rows = stream.layout.shape[1:]
    if scale is not None and parts[0].part.more:
        raise AdoptionError(
            f"sound together with rows is not supported: leave out [input] sample_rate, or make "
            f"{listed([one.name for one in parts[0].part.more])} [constants] or [input] conditions"
        )
    spec = Input.model_validate(
        {
            "limits": _limits(stream),
            "name": stream.name if scale is None else "pcm",
            "dtype": stream.dtype if scale is None else "int16",
            "chunk_shape": (stream.chunk, *(rows if scale is None else ())),
            "sample_rate": source.sample_rate,
            "step_seconds": source.step_seconds if source.sample_rate is None else None,
        }
    )
    more = tuple(
        StreamInput.model_validate(
            {
                "name": one.name,
                "dtype": one.dtype,
                "chunk_shape": (one.chunk, *one.layout.shape[1:]),
                "limits": _limits(one),
            }
        )
        for one in parts[0].part.more
    )
    results = [
        _result(settled, number, name, settings) for number, settled in enumerate(parts) for name in settled.results
    ]
    last = None
    if settings.host is not None:
        results, last = _sound(parts, results, settings.host)
    chain = GraphChain(tuple(parts), spec, more, scale, settings.host, tuple(results), last)
    steps = chain.output(results[0]).shape[0]
    if stream.chunk % steps:
        raise AdoptionError(
            f"{stream.chunk} samples or rows a call can't be divided evenly into {steps} steps of {results[0].source}"
            f": say [outputs] time = {{ {results[0].source} = AXIS }}, or keep another output first"
        )
    for result in results:
        shape = chain.output(result).shape
        report.found(f"result {result.source}: {_steps(result, shape)}" + _sound_text(result))
    return chain


def _limits(stream: InputStream) -> tuple[tuple[int, int], ...] | None:
    """The manifest's limits of an integer input."""
    if stream.limit is None or len(stream.layout.shape) > 2:
        return None
    return ((0, stream.limit),) * (stream.layout.shape[1] if len(stream.layout.shape) == 2 else 1)


def _steps(result: ChainOutput, shape: tuple[int, ...]) -> str:
    """A text for the report: the interpretation of a result's axes."""
    steps = "1 step" if shape[0] == 1 else f"{shape[0]} steps"
    return f"{list(shape)} a call, {steps} of {' x '.join(map(str, shape[1:])) if len(shape) > 1 else 'one value'}"


def _sound_text(result: ChainOutput) -> str:
    if result.kind == "plain":
        return "" if result.name == result.source else f", named {result.name}"
    return f", which gives sound as a {result.kind}, named {result.name}"


def _result(settled: Settled, number: int, name: str, settings: AdoptSettings) -> ChainOutput:
    sizes, axis = settled.results[name]
    if not all(sizes):
        raise AdoptionError(f"the output {name} is empty, {list(sizes)}: leave it out, [outputs] drop = [{name!r}]")
    layout = AxisLayout.moved(sizes, axis)
    time: int | str | None = settings.outputs.time.get(name)
    if time is None and number == 0 and settings.host is None:
        time = settled.times.get(name)
    if time == "none":
        layout = layout.labelled()
    elif isinstance(time, int):
        if time >= len(sizes) or time == axis:
            raise AdoptionError(
                f"[outputs] time of {name} = {time}: it has the sizes {list(sizes)}, the batch on axis {axis}"
            )
        layout = layout.then(layout.groups[time][-1])
    port = settled.part.port(name)
    return ChainOutput(name if number == 0 else f"chain.{name}", number, name, layout, port.dtype)


def _sound(
    parts: Sequence[Settled], results: list[ChainOutput], host: Host
) -> tuple[list[ChainOutput], AxisLayout | None]:
    """The first result becomes sound, unless nothing in it looks like a spectrum or a frame."""
    first = results[0]
    sizes, axis = parts[0].results[first.source]
    wanted = {"mask": "magnitude", None: None}.get(host.result, host.result)
    if host.result == "mask" and len([size for size in sizes if size == 2]) and sizes[-1] == 2:
        wanted = "complex"
    if host.result == "none":
        return results, None
    try:
        kind, layout = spectral(list(sizes), axis, host, wanted, f"the output {first.source}")
    except AdoptionError:
        if host.result is None and len(parts) == 1:
            return results, None
        raise
    synthesis_window(host)  # raises without a window
    result_kind = host.result or {"complex": "spectrum", "frame": "frame"}.get(kind, "mask")
    if layout.shape[0] != parts[0].part.stream.layout.shape[0]:
        raise AdoptionError(
            f"the output {first.source} has {layout.shape[0]} frames for those of the input: they don't match"
        )
    sound = ChainOutput("audio", 0, first.source, layout, first.dtype, result_kind)
    if len(parts) == 1:
        return [sound, *results[1:]], None
    end = next(result for result in results if result.part == 1)
    sizes, axis = parts[1].results[end.source]
    _, last = spectral(list(sizes), axis, host, "frame", f"the output {end.source}")
    return [sound, *(result for result in results[1:] if result is not end)], last
