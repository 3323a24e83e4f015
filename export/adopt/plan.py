"""The static plan of one graph: its streams, the size of every state, and the candidates for its batch axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.axes import Axes, axes_of
from export.adopt.flow import GraphFlow
from export.adopt.questions import Questions, quoted
from export.adopt.read import Foreign
from export.adopt.report import AdoptionError, Report
from export.adopt.roles import Port, Roles
from export.adopt.settings import AdoptSettings
from export.adopt.start import start_of
from export.adopt.stream import (
    InputStream,
    batch_axis,
    description,
    frames_of,
    further_stream,
    rows_of,
    size_of,
    symbol_of,
)

__all__ = ["GraphPart", "StatePlan", "part_of"]


@dataclass(frozen=True, eq=False)
class StatePlan:
    """A state. ``raw``: sizes at batch 1. ``axes``: candidates for the batch axis, the likeliest first, ``None``: no
    axis.

    ``out``: the output it comes back as; ``None`` for a counter, to which a call adds ``step``, and for a condition
    (``given``), which the client sets once. ``start``: its values at the start of a stream, of shape [] or ``raw``.
    """

    name: str
    out: str | None
    dtype: str
    raw: tuple[int, ...]
    axes: tuple[int | None, ...]
    start: NDArray[Any] = field(default_factory=lambda: np.zeros(()))
    step: int = 0
    given: bool = False

    @property
    def starts(self) -> bool:
        """Whether its initial values are not zeros."""
        return bool(self.start.any())

    def first(self) -> NDArray[Any]:
        """The values at the start of a stream, raw."""
        return np.array(np.broadcast_to(self.start, self.raw), self.dtype)


@dataclass
class GraphPart:
    """One graph of the chain, with roles and plans. ``memories``: states and conditions. ``more``: further streams with
    the same clock."""

    foreign: Foreign
    roles: Roles
    stream: InputStream
    memories: list[StatePlan] = field(default_factory=list)
    more: list[InputStream] = field(default_factory=list)

    @property
    def streams(self) -> tuple[InputStream, ...]:
        """All streams, the first one first."""
        return (self.stream, *self.more)

    @property
    def states(self) -> list[StatePlan]:
        """The states that the host keeps from call to call."""
        return [memory for memory in self.memories if not memory.given]

    @property
    def conditions(self) -> list[StatePlan]:
        """The inputs that a client sets once for a stream."""
        return [memory for memory in self.memories if memory.given]

    def port(self, name: str) -> Port:
        """The input or output of this name."""
        return next(port for port in (*self.foreign.inputs, *self.foreign.outputs) if port.name == name)


def part_of(
    foreign: Foreign,
    roles: Roles,
    settings: AdoptSettings,
    report: Report,
    *,
    frames: bool = False,
    flow: GraphFlow | None = None,
    asked: Questions | None = None,
) -> GraphPart | None:
    """Plan one graph. ``frames``: it takes frames of sound from another graph. ``asked``: collects questions, and the
    result is ``None`` if there are any; without it they are raised as :class:`OpenQuestionsError`.

    Raises :class:`AdoptionError` for settings that do not fit the graph."""
    questions = Questions() if asked is None else asked
    known = dict(settings.dims)
    hints = {name: int(text) for name, text in foreign.metadata.items() if text.isascii() and text.isdigit()}
    port = next(p for p in foreign.inputs if p.name == roles.stream)
    seen = Axes() if flow is None or frames else axes_of(flow, port.name, roles.pairs.values())
    axis = batch_axis(port, settings, seen, frames)
    if settings.host is not None:
        stream: InputStream | None = frames_of(port, axis, settings, known, frames)
    else:
        stream = rows_of(port, axis, settings, known, hints, seen, flow, questions)
    symbol = None if axis is None else port.dims[axis]
    hints = {name: size for name, size in hints.items() if name != symbol}
    memories = []
    for before, after in roles.pairs.items():
        state = next(p for p in foreign.inputs if p.name == before)
        back = next(p for p in foreign.outputs if p.name == after)
        memories.append(_memory(state, back, symbol, axis is not None, {**hints, **known}, settings, questions))
    for name in roles.conditions:
        state = next(p for p in foreign.inputs if p.name == name)
        memories.append(
            _memory(state, None, symbol, axis is not None, {**hints, **known}, settings, questions, given=True)
        )
    for name, step in roles.counters.items():
        state = next(p for p in foreign.inputs if p.name == name)
        if state.dtype not in ("int32", "int64"):
            raise AdoptionError(f"[counters] {name}: {state} does not count, only integers do")
        axes = (None,) if not state.dims else (0, None)
        raw = (1,) * len(state.dims)
        memories.append(StatePlan(name, None, state.dtype, raw, axes, start_of(settings, state, raw), step))
    more = [
        further_stream(
            next(p for p in foreign.inputs if p.name == name), stream, settings, known, hints, roles, flow, questions
        )
        for name in roles.streams
        if stream is not None
    ]
    if asked is None:
        questions.settle()
    if stream is None or None in memories or None in more:
        return None
    kept = [memory for memory in memories if memory is not None]
    for one in (stream, *(found for found in more if found is not None)):
        where = next(p for p in foreign.inputs if p.name == one.name)
        report.found(f"stream {where}: {description(one, where, settings)}")
    return GraphPart(foreign, roles, stream, kept, [found for found in more if found is not None])


# -- states -----------------------------------------------------------------------------------------------------------


def _memory(
    port: Port,
    back: Port | None,
    symbol: int | str | None,
    batched: bool,
    known: Mapping[str, int],
    settings: AdoptSettings,
    asked: Questions,
    *,
    given: bool = False,
) -> StatePlan | None:
    """The plan of a state or condition. ``back``: the output it comes back as. ``symbol``: the stream's batch size as
    the file declares it. ``batched``: whether the stream has a batch axis."""
    sizes = [size_of(port, axis, known) for axis in range(len(port.dims))]
    free = [axis for axis, size in enumerate(sizes) if size is None]
    chosen = settings.batch.get(port.name)
    if chosen is not None and chosen >= len(sizes):
        raise AdoptionError(f"[batch] {port.name} = {chosen}: the state is {port}")
    if chosen is not None and free in ([], [chosen]):
        axes: tuple[int | None, ...] = (chosen,)
    elif not free:
        ones = [axis for axis, size in enumerate(sizes) if size == 1]
        folded = [axis for axis, size in enumerate(sizes) if size != 1]
        axes = (*ones, *folded, None)
    else:
        named = [axis for axis in free if port.dims[axis] == symbol and symbol is not None]
        # a free axis whose symbol is not that of the stream's batch is a batch only if it has no symbol
        loose = not isinstance(symbol, int) and (symbol is None or port.dims[free[0]] is None)
        axes = tuple(named) or (tuple(free) if loose else ())
        if len(free) != 1 or not axes or not batched:
            for axis in (axis for axis in free if axis not in named or len(free) == len(named)):
                comes = "" if back is None else f" and comes back as {back}"
                asked.ask(
                    "dims",
                    f"{symbol_of(port, axis)} = 1",
                    f"{port} has a dynamic size on axis {axis}{comes}. If it is the batch, say [batch] "
                    f"{quoted(port.name)} = {axis} instead. If it grows from call to call, no size is right: export "
                    "the model with a window of fixed length",
                )
            return None
    raw = tuple(1 if size is None else size for size in sizes)
    out = None if back is None else back.name
    return StatePlan(port.name, out, port.dtype, raw, axes, start_of(settings, port, raw), given=given)
