"""The input stream: the layout of its tensor, its time axis, and the number of its rows that are new in each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from export.adopt.axes import Axes, axes_of, table_of
from export.adopt.flow import GraphFlow
from export.adopt.layout import AxisLayout
from export.adopt.questions import Questions, quoted
from export.adopt.report import AdoptionError
from export.adopt.roles import Port, Roles
from export.adopt.settings import AdoptSettings, Host, SourceSettings
from export.adopt.start import overlap_start

__all__ = [
    "InputStream",
    "batch_axis",
    "chunk_question",
    "description",
    "frames_of",
    "further_stream",
    "rows_of",
    "size_of",
    "spectral",
    "symbol_of",
]

#: Common names of raw sound inputs.
_SOUND = {"audio", "wav", "pcm", "waveform", "signal", "samples", "sound", "speech", "noisy", "mix", "wav_in"}


@dataclass(frozen=True)
class InputStream:
    """``kind``: ``pcm`` or ``rows``, or the host's feature of frames (``complex``, ``magnitude``, ``power``,
    ``frame``). ``layout``: of the tensor of one call. ``chunk`` and ``overlap``: samples or rows. ``limit``: an integer
    input is from 0 to this value, ``None``: any. ``time``: the time axis of the foreign tensor, ``None``: it has none,
    a call is one step. ``start``: the value of the overlap before the stream. ``open``: the file takes any number of
    steps in a call, the settings give none, and one was assumed."""

    name: str
    dtype: str
    kind: str
    layout: AxisLayout
    chunk: int
    overlap: int
    limit: int | None = None
    time: int | None = None
    start: float = 0
    open: bool = False


def batch_axis(port: Port, settings: AdoptSettings, seen: Axes, frames: bool) -> int | None:
    """The stream's batch axis: from the settings, the graph (``seen``) or the shape. Raises :class:`AdoptionError` for
    a batch that is fixed at another size than 1."""
    batch = settings.input.batch if not frames else None
    if batch is None:
        batch = 0 if len(port.dims) > 1 else None
        if len(seen.batch) == 1 and settings.input.time not in seen.batch:  # the batch axis of a recurrent layer
            (batch,) = seen.batch
    elif batch >= len(port.dims):
        raise AdoptionError(f"[input] batch = {batch}: the input is {port}")
    if batch is not None and isinstance(size := port.dims[batch], int) and size != 1:
        raise AdoptionError(
            f"the batch of {port} is fixed at {size}: export the model with a batch of 1, or a free one"
        )
    return batch


def rows_of(
    port: Port,
    batch: int | None,
    settings: AdoptSettings,
    known: Mapping[str, int],
    hints: Mapping[str, int],
    seen: Axes,
    flow: GraphFlow | None,
    asked: Questions,
) -> InputStream | None:
    """A stream of sound or rows without transforms, perhaps with an overlap. ``known``: sizes from the settings, by
    symbol; ``hints``: numbers from the metadata; ``seen``: roles of axes in the graph. ``None`` if questions are open.
    Raises :class:`AdoptionError`."""
    source = settings.input
    sound = source.sample_rate is not None
    others = [axis for axis in range(len(port.dims)) if axis != batch]
    if source.time is not None and source.time not in others:
        raise AdoptionError(f"[input] time = {source.time} is not an axis of {port} beside the batch")
    # the metadata of two families of recognisers has the number of rows of a call, and by how many rows calls advance
    window, shift = hints.get("window_size", hints.get("T")), hints.get("chunk_shift", hints.get("decode_chunk_len"))
    time = source.time if source.time is not None else _time_axis(port, others, source, seen, known, asked, window)
    if time == _UNKNOWN:
        for axis in others:
            _known(port, axis, known, hints, asked, among=others)
        return None
    whole = 1 if time is None else size_of(port, time, {**hints, **known})
    chunk, overlap = source.chunk, source.overlap
    if chunk is None and overlap is None and window is not None and shift is not None and whole in (None, window):
        whole, chunk, overlap = window, shift, window - shift
    overlap = overlap or 0
    rest = [axis for axis in others if axis != time]
    sizes = [_known(port, axis, known, hints, asked) for axis in rest]
    steps_open = chunk is None and whole is None and not sound and not overlap
    if steps_open:
        chunk = 1  # :mod:`export.adopt.steps` proves this, or asks
    elif chunk is None and whole is None:
        asked.ask(*chunk_question(port, time, sound=sound))
    if None in sizes or (chunk is None and whole is None):
        return None
    if chunk is None:
        assert whole is not None
        chunk = whole - overlap
    if chunk < 1 or whole not in (None, chunk + overlap):
        raise AdoptionError(
            f"{port} takes {whole} on axis {time}: [input] chunk and overlap are {chunk} and {overlap}, their sum "
            f"must be {whole}"
        )
    if sound and any(size != 1 for size in sizes):
        raise AdoptionError(
            f"{port} takes more than one channel of sound, a stream has one: leave out [input] sample_rate"
        )
    kept = [] if sound else rest
    places = {axis: (place,) for place, axis in enumerate(kept, 2)}
    if time is not None:
        places[time] = (1,)
    shape = (chunk + overlap, *(size for size in sizes if size is not None and not sound))
    limit = None
    if flow is not None and not sound and port.dtype.startswith(("int", "uint")):
        table = table_of(flow, port.name)
        limit = None if table is None else table - 1
    layout = _layout(port, batch, shape, places)
    start = overlap_start(settings, port.name)
    kind = "pcm" if sound else "rows"
    return InputStream(port.name, port.dtype, kind, layout, chunk, overlap, limit, time, start, steps_open)


def chunk_question(port: Port, time: int | None, *, sound: bool) -> tuple[str, str, str]:
    """A question about the number of samples or rows in a call: table, line, reason."""
    unit = "samples" if sound else "rows"
    return "input", f"chunk = {512 if sound else 1}", f"{port}: axis {time} is free; {unit} new in each call"


#: Result of :func:`_time_axis` if the user has to choose.
_UNKNOWN = -1


def _time_axis(
    port: Port,
    others: list[int],
    source: SourceSettings,
    seen: Axes,
    known: Mapping[str, int],
    asked: Questions,
    window: int | None,
) -> int | None:
    """The time axis. ``None``: a call is one step, and the tensor has no time axis. :data:`_UNKNOWN`: a question was
    asked."""
    free = [axis for axis in others if size_of(port, axis, known) is None]
    sizes = {axis: size_of(port, axis, known) or 0 for axis in others}
    if len(free) == 1:
        return free[0]
    if source.sample_rate is not None and others:
        return (free or [max(others, key=lambda axis: sizes[axis])])[0]
    wanted = (source.chunk or 0) + (source.overlap or 0) or window
    fits = [axis for axis in others if wanted and sizes[axis] == wanted]
    if len(fits) == 1:
        return fits[0]
    if not others:
        return None
    seen_time = [axis for axis in seen.time if axis in others]
    if len(seen_time) == 1:
        return seen_time[0]
    if len(others) == 1:
        (axis,) = others
        whole = port.dtype.startswith(("int", "uint"))
        if axis not in seen.features and sizes[axis] > 1 and port.name.lower().split(".")[0] in _SOUND:
            asked.ask(
                "input",
                "sample_rate = 16000",
                f"{port}: by its name {sizes[axis]} samples of sound a call. If it is not sound, say instead time = "
                f"{axis} for {sizes[axis]} steps of one value",
            )
            return _UNKNOWN
        return axis if whole or sizes[axis] == 1 else None
    if free:
        return free[0]
    if len(others) == 2:
        features = [axis for axis in seen.features if axis in others]
        ones = [axis for axis in others if sizes[axis] == 1]
        if len(features) == 1:
            return next(axis for axis in others if axis != features[0])
        if len(ones) == 2 or ones == [others[0]]:
            return ones[0]
    ones = [axis for axis in others if sizes[axis] == 1]
    if len(others) > 2 and ones and ones != others[-1:]:
        return ones[0]
    choices = " or ".join(f"axis {axis} ({sizes[axis]} steps)" for axis in others)
    asked.ask("input", f"time = {others[0]}", f"{port}: which axis is time, {choices}? The graph does not show it")
    return _UNKNOWN


def further_stream(
    port: Port,
    first: InputStream,
    settings: AdoptSettings,
    known: Mapping[str, int],
    hints: Mapping[str, int],
    roles: Roles,
    flow: GraphFlow | None,
    asked: Questions,
) -> InputStream | None:
    """A further stream, with as many rows in a call as the first one."""
    seen = Axes() if flow is None else axes_of(flow, port.name, roles.pairs.values())
    plain = settings.model_copy(
        update={"input": settings.input.model_copy(update={"time": settings.streams.get(port.name), "batch": None})}
    )
    axis = batch_axis(port, plain, seen, False)
    again = plain.input.model_copy(update={"chunk": first.chunk, "overlap": first.overlap, "sample_rate": None})
    return rows_of(port, axis, plain.model_copy(update={"input": again}), known, hints, seen, flow, asked)


def frames_of(
    port: Port, batch: int | None, settings: AdoptSettings, known: Mapping[str, int], chained: bool
) -> InputStream:
    """A stream of frames of ``fft`` samples, as spectra or as samples. ``chained``: the graph takes the frames of
    another one. Raises :class:`AdoptionError` for shapes that do not fit [host]."""
    host = settings.host
    assert host is not None
    if settings.input.sample_rate is None:
        raise AdoptionError("[host] fft is for sound: say [input] sample_rate")
    sizes = [size_of(port, axis, known) for axis in range(len(port.dims))]
    wanted = "frame" if chained else host.feature
    kind, layout = spectral(sizes, batch, host, wanted, f"the input {port}")
    steps = layout.shape[0]
    if kind == "frame" and steps != 1:
        raise AdoptionError(f"the input {port} takes {steps} frames of sound at once: only one at a time is supported")
    return InputStream(port.name, port.dtype, kind, layout, steps * host.hop, host.fft - host.hop)


def spectral(
    sizes: list[int | None], batch: int | None, host: Host, wanted: str | None, what: str
) -> tuple[str, AxisLayout]:
    """The kind of frames in a tensor of these sizes (``complex``, ``magnitude`` or ``frame``; ``power`` only if
    ``wanted``), and their layout: canonical [batch, time, bins], [batch, time, bins, 2] or [batch, time, fft].

    ``what``: the tensor's name in errors. Raises :class:`AdoptionError` if the sizes do not fit [host].
    """
    bins = host.fft // 2 + 1
    others = [axis for axis in range(len(sizes)) if axis != batch]
    wide = host.fft if wanted == "frame" else bins
    at = [axis for axis in others if sizes[axis] == wide]
    if not at and wanted is None:
        wide, wanted = host.fft, "frame"
        at = [axis for axis in others if sizes[axis] == wide]
    if not at:
        size = f"{bins} (a spectrum)" if wanted != "frame" else f"{host.fft} (a frame)"
        raise AdoptionError(f"{what} has no axis of {size}: [host] fft, feature or result does not fit it")
    bin_axis = at[-1]
    rest = [axis for axis in others if axis != bin_axis]
    pair: list[int] = []
    if wanted in (None, "complex", "spectrum"):
        pair = [axis for axis in rest if sizes[axis] == 2][-1:]
        if wanted is not None and not pair:
            raise AdoptionError(f"{what} has no axis of 2 for the real and the imaginary part, as [host] says")
    rest = [axis for axis in rest if axis not in pair]
    long = [axis for axis in rest if sizes[axis] != 1]
    if len(long) > 1:
        raise AdoptionError(f"{what} has more axes than time and frequency, so [host] does not fit it")
    time = long[0] if long else next(iter(rest), None)
    steps = 1 if time is None else sizes[time] or 1
    shape = (steps, wide, *((2,) if pair else ()))
    places = {bin_axis: (2,)} | ({time: (1,)} if time is not None else {}) | dict.fromkeys(pair, (3,))
    groups = tuple((0,) if axis == batch else places.get(axis, ()) for axis in range(len(sizes)))
    found = "complex" if pair else "frame" if wide == host.fft else "power" if wanted == "power" else "magnitude"
    return found, AxisLayout(shape, groups)


def _layout(port: Port, batch: int | None, shape: tuple[int, ...], places: Mapping[int, tuple[int, ...]]) -> AxisLayout:
    """The layout of a stream. ``places``: raw axis -> canonical axes in it."""
    groups = tuple((0,) if axis == batch else places.get(axis, ()) for axis in range(len(port.dims)))
    return AxisLayout(shape, groups)


def description(stream: InputStream, port: Port, settings: AdoptSettings) -> str:
    """A text for the report: the assumed role, and the line of TOML that changes it."""
    if settings.host is not None and stream.kind not in ("pcm", "rows"):
        return f"{stream.kind} of frames of {settings.host.fft} samples, {stream.chunk} new in each call"
    before = f", after the last {stream.overlap} of the call before" if stream.overlap else ""
    if stream.kind == "pcm":
        return f"{stream.chunk} samples a call{before}"
    sizes = stream.layout.shape[1:]
    values = f"{' x '.join(map(str, sizes))} values" if sizes else "one value"
    steps = "1 step" if stream.chunk == 1 else f"{stream.chunk} steps"
    if stream.limit is not None:
        values += f" from 0 to {stream.limit}"
    batch = stream.layout.axis()
    others = [axis for axis in range(len(port.dims)) if axis not in (batch, stream.time)]
    change = f"; for another say [input] time = {others[0]}" if others else ""
    change += "; for more a call say [input] chunk = N" if stream.open else ""
    axis = "" if stream.time is None else f" (time on axis {stream.time})"
    return f"{steps} of {values} a call{axis}{before}{change}"


def symbol_of(port: Port, axis: int) -> str:
    """The key of a dynamic size in [dims]: its symbol, or the tensor's name and the axis."""
    return quoted(str(port.dims[axis] or f"{port.name}.{axis}"))


def size_of(port: Port, axis: int, known: Mapping[str, int]) -> int | None:
    """The declared size, else the user's value for the symbol or for the axis; ``None``: unknown."""
    size = port.dims[axis]
    if isinstance(size, int):
        return size
    return known.get(size or "", known.get(f"{port.name}.{axis}"))


def _known(
    port: Port,
    axis: int,
    known: Mapping[str, int],
    hints: Mapping[str, int],
    asked: Questions,
    among: Sequence[int] = (),
) -> int | None:
    """The size of an axis; ``None``, and a question, if it is unknown."""
    size = size_of(port, axis, {**hints, **known})
    if size is None:
        other = f"if it is time, say [input] time = {axis} instead" if not among else "unless it is time"
        asked.ask("dims", f"{symbol_of(port, axis)} = 1", f"{port} has an unknown size on axis {axis}; {other}")
    return size
