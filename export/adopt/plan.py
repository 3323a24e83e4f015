"""Sizes: how the stream lies in its tensor, how much of it is new in each call, where a state may have its batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.adopt.layout import Layout
from export.adopt.read import Foreign
from export.adopt.report import AdoptionError, Report
from export.adopt.roles import Port, Roles
from export.adopt.settings import Host, Settings

__all__ = ["Memory", "Part", "Stream", "part_of", "spectral"]


@dataclass(frozen=True)
class Stream:
    """``kind``: ``pcm`` or ``rows``, or what the host makes of frames. ``chunk`` and ``overlap`` in samples or rows;
    ``layout``: of one call's worth."""

    name: str
    dtype: str
    kind: str
    layout: Layout
    chunk: int
    overlap: int


@dataclass(frozen=True)
class Memory:
    """A state. ``raw``: sizes at batch 1; ``axes``: where the batch may be, the likeliest first, ``None``: nowhere.

    ``out`` is ``None`` for a counter, to which a call adds ``step``. ``start``: its value at the start of a stream.
    """

    name: str
    out: str | None
    dtype: str
    raw: tuple[int, ...]
    axes: tuple[int | None, ...]
    start: float = 0
    step: int = 0


@dataclass
class Part:
    """One graph of the chain, and what is known of it."""

    foreign: Foreign
    roles: Roles
    stream: Stream
    memories: list[Memory] = field(default_factory=list)

    def port(self, name: str) -> Port:
        return next(port for port in (*self.foreign.inputs, *self.foreign.outputs) if port.name == name)


def part_of(foreign: Foreign, roles: Roles, settings: Settings, report: Report, *, frames: bool = False) -> Part:
    """``frames``: it takes frames of sound behind another graph. Raises :class:`AdoptionError` for unknown sizes."""
    known = dict(settings.dims)
    hints = {name: int(text) for name, text in foreign.metadata.items() if text.isascii() and text.isdigit()}
    port = next(p for p in foreign.inputs if p.name == roles.stream)
    batch = settings.input.batch if not frames else None
    if batch is None:
        batch = 0 if len(port.dims) > 1 else -1
    if batch >= len(port.dims):
        raise AdoptionError(f"[input] batch = {batch}: the input is {port}")
    if batch >= 0 and isinstance(size := port.dims[batch], int) and size != 1:
        raise AdoptionError(
            f"the batch of {port} is fixed at {size}: export the model with a batch of 1, or a free one"
        )
    axis = batch if batch >= 0 else None
    if settings.host is not None:
        stream = _frames(port, axis, settings, known, frames)
    else:
        stream = _rows(port, axis, settings, known, hints)
    report.found(f"stream {port}: {_say(stream, settings)}")
    symbol = None if axis is None else port.dims[axis]
    hints = {name: size for name, size in hints.items() if name != symbol}
    part = Part(foreign, roles, stream)
    for before, behind in roles.pairs.items():
        state = next(p for p in foreign.inputs if p.name == before)
        part.memories.append(_memory(state, behind, symbol, axis is not None, {**hints, **known}, settings))
    for name, step in roles.counters.items():
        state = next(p for p in foreign.inputs if p.name == name)
        if state.dtype not in ("int32", "int64"):
            raise AdoptionError(f"[counters] {name}: {state} does not count, whole numbers do")
        axes = (None,) if not state.dims else (0, None)
        start = settings.start.get(name, 0)
        part.memories.append(Memory(name, None, state.dtype, (1,) * len(state.dims), axes, start, step))
    return part


# -- the stream -------------------------------------------------------------------------------------------------------


def _rows(
    port: Port, batch: int | None, settings: Settings, known: Mapping[str, int], hints: Mapping[str, int]
) -> Stream:
    """Sound or rows of features as they are, perhaps with some of the last call before them."""
    source = settings.input
    sound = source.sample_rate is not None
    others = [axis for axis in range(len(port.dims)) if axis != batch]
    time = source.time if source.time is not None else _time_axis(port, others, sound)
    if time not in others:
        raise AdoptionError(f"[input] time = {time} is no axis of {port} beside the batch")
    whole = _size(port, time, {**hints, **known})
    # two families of recognisers say in their metadata how many rows they take, and by how many they go on
    window, shift = hints.get("window_size", hints.get("T")), hints.get("chunk_shift", hints.get("decode_chunk_len"))
    chunk, overlap = source.chunk, source.overlap
    if chunk is None and overlap is None and window is not None and shift is not None and whole in (None, window):
        whole, chunk, overlap = window, shift, window - shift
    overlap = overlap or 0
    if chunk is None:
        if whole is None:
            raise AdoptionError(
                f"{port} does not say how long a chunk is (axis {time} is free): say [input] chunk = the samples or "
                "rows that are new in each call"
            )
        chunk = whole - overlap
    if chunk < 1 or whole not in (None, chunk + overlap):
        raise AdoptionError(
            f"{port} takes {whole} on axis {time}: [input] chunk and overlap are {chunk} and {overlap}, their sum "
            "must be that"
        )
    sizes = [chunk + overlap if axis == time else _known(port, axis, known, hints) for axis in others]
    rest = [axis for axis in others if axis != time]
    if sound and any(size != 1 for axis, size in zip(others, sizes, strict=True) if axis != time):
        raise AdoptionError(
            f"{port} takes more than one channel of sound, a stream has one: leave out [input] sample_rate"
        )
    places = {axis: (place,) for place, axis in enumerate([time, *([] if sound else rest)], 1)}
    shape = (chunk + overlap, *(() if sound else (_known(port, axis, known, hints) for axis in rest)))
    layout = _layout(port, batch, shape, places)
    return Stream(port.name, port.dtype, "pcm" if sound else "rows", layout, chunk, overlap)


def _time_axis(port: Port, others: list[int], sound: bool) -> int:
    free = [axis for axis in others if not isinstance(port.dims[axis], int)]
    if len(free) == 1:
        return free[0]
    if sound and others:
        return max(others, key=lambda axis: size if isinstance(size := port.dims[axis], int) else 0)
    return (free or others or [0])[0]


def _frames(port: Port, batch: int | None, settings: Settings, known: Mapping[str, int], behind: bool) -> Stream:
    """Frames of ``fft`` samples, as spectra or as they are."""
    host = settings.host
    assert host is not None
    if settings.input.sample_rate is None:
        raise AdoptionError("[host] fft is for sound: say [input] sample_rate")
    sizes = [_size(port, axis, known) for axis in range(len(port.dims))]
    wanted = "frame" if behind else host.feature
    kind, layout = spectral(sizes, batch, host, wanted, f"the input {port}")
    steps = layout.shape[0]
    if kind == "frame" and steps != 1:
        raise AdoptionError(f"the input {port} takes {steps} frames of sound at once: one at a time can be adopted")
    return Stream(port.name, port.dtype, kind, layout, steps * host.hop, host.fft - host.hop)


def spectral(
    sizes: list[int | None], batch: int | None, host: Host, wanted: str | None, what: str
) -> tuple[str, Layout]:
    """What frames a tensor of these sizes holds (``complex``, ``magnitude`` or ``frame``; ``power`` is only said), and
    where: canonical [batch, time, bins], [batch, time, bins, 2] or [batch, time, fft]."""
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
            raise AdoptionError(f"{what} has no axis of 2 for the real and the imaginary part: [host] does not fit it")
    rest = [axis for axis in rest if axis not in pair]
    long = [axis for axis in rest if sizes[axis] != 1]
    if len(long) > 1:
        raise AdoptionError(f"{what} has more axes than time and frequency: [host] does not fit it")
    time = long[0] if long else next(iter(rest), None)
    steps = 1 if time is None else sizes[time] or 1
    shape = (steps, wide, *((2,) if pair else ()))
    places = {bin_axis: (2,)} | ({time: (1,)} if time is not None else {}) | dict.fromkeys(pair, (3,))
    groups = tuple((0,) if axis == batch else places.get(axis, ()) for axis in range(len(sizes)))
    found = "complex" if pair else "frame" if wide == host.fft else "power" if wanted == "power" else "magnitude"
    return found, Layout(shape, groups)


def _layout(port: Port, batch: int | None, shape: tuple[int, ...], places: Mapping[int, tuple[int, ...]]) -> Layout:
    groups = tuple((0,) if axis == batch else places.get(axis, ()) for axis in range(len(port.dims)))
    return Layout(shape, groups)


def _say(stream: Stream, settings: Settings) -> str:
    if settings.host is not None and stream.kind not in ("pcm", "rows"):
        return f"{stream.kind} of frames of {settings.host.fft} samples, {stream.chunk} new in each call"
    unit = "samples" if stream.kind == "pcm" else "rows"
    before = f", the last {stream.overlap} of the call before in front of them" if stream.overlap else ""
    return f"{stream.chunk} {unit} a call{before}"


# -- states -----------------------------------------------------------------------------------------------------------


def _memory(
    port: Port, out: str, symbol: int | str | None, batched: bool, known: Mapping[str, int], settings: Settings
) -> Memory:
    """``symbol``: what the stream calls its batch. ``batched``: it has one."""
    sizes = [_size(port, axis, known) for axis in range(len(port.dims))]
    free = [axis for axis, size in enumerate(sizes) if size is None]
    said = settings.batch.get(port.name)
    start = settings.start.get(port.name, 0)
    if said is not None and said >= len(sizes):
        raise AdoptionError(f"[batch] {port.name} = {said}: the state is {port}")
    if said is not None and free in ([], [said]):
        axes: tuple[int | None, ...] = (said,)
    elif not free:
        ones = [axis for axis, size in enumerate(sizes) if size == 1]
        folded = [axis for axis, size in enumerate(sizes) if size != 1]
        axes = (*ones, *folded, None)
    else:
        named = [axis for axis in free if port.dims[axis] == symbol and symbol is not None]
        # a free axis that the stream does not call its batch is one only where nobody has named it
        loose = not isinstance(symbol, int) and (symbol is None or port.dims[free[0]] is None)
        axes = tuple(named) or (tuple(free) if loose else ())
        if len(free) != 1 or not axes or not batched:
            lost = next(axis for axis in free if axis not in named or len(free) == len(named))
            size = port.dims[lost]
            raise AdoptionError(
                f"the state {port} has a dynamic size on axis {lost}: if it is always the same say "
                f"[dims] {size or 'NAME'} = n (or export it with that size), if it is the batch [batch] {port.name} = "
                f"{lost}; a state that grows can't be kept"
            )
    raw = tuple(1 if size is None else size for size in sizes)
    return Memory(port.name, out, port.dtype, raw, axes, start)


def _size(port: Port, axis: int, known: Mapping[str, int]) -> int | None:
    """What is declared, or said of the axis's symbol."""
    size = port.dims[axis]
    return size if isinstance(size, int) else known.get(size) if size is not None else None


def _known(port: Port, axis: int, known: Mapping[str, int], hints: Mapping[str, int]) -> int:
    size = _size(port, axis, {**hints, **known})
    if size is None:
        name = port.dims[axis] or "NAME"
        raise AdoptionError(
            f"{port} has an unknown size on axis {axis}: say [dims] {name} = n, or [input] time = {axis}"
        )
    return size
