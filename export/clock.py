"""Finds the time axis by the chunk law itself: one call with three chunks must give what three calls give.

If a module only takes the example's length, the shape decides: one step is a row of features, or the axis of size one,
and the tool prints its choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.axes import NEAR, Places, TensorLayout, Values, far
from export.forward import ExportError, Forward

__all__ = ["ModuleAxes", "find_time"]

CHUNKS = 3


@dataclass(frozen=True)
class ModuleAxes:
    """A layout for every tensor. ``free``: the batch may have any size.

    ``whole``: one call may have any number of chunks, which was tried; else the shape alone says what is time, and
    PyTorch is run chunk by chunk. ``differs``: what a call with several steps is off by, of a module that is called
    with one: then its outputs do not depend on how a stream is cut, which is all that the chunk law asks.
    """

    inputs: tuple[TensorLayout, ...]
    conditions: tuple[TensorLayout, ...]
    states: tuple[TensorLayout, ...]
    outputs: tuple[TensorLayout, ...]
    free: bool
    whole: bool
    differs: float | None = None


@dataclass(frozen=True)
class _Trial:
    """The result of one trial. ``deviation``: ``None`` if it could not be run; ``outputs``: their time axes."""

    deviation: float | None
    outputs: tuple[int | None, ...] = ()


def find_time(
    forward: Forward,
    places: Places,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    values: Values,
    *,
    time: Mapping[str, int | None],
    whole: bool,
) -> ModuleAxes:
    """``time``: axes that are known, counted in the module's tensor. ``whole``: False where longer calls are wrong.

    Raises :class:`ExportError` where a longer call runs and gives something else.
    """
    count = len(forward.inputs)
    shapes = [_bare(tensor, axis) for tensor, axis in zip(given[:count], places.given, strict=False)]
    usual = tuple(_usual(shape, tensor.dtype) for shape, tensor in zip(shapes, given, strict=False))
    fixed = {
        i: _known(name, time[name], places.given[i], shapes[i]) for i, name in enumerate(forward.inputs) if name in time
    }
    usual = tuple(fixed.get(i, axis) for i, axis in enumerate(usual))
    choices = [[fixed[i]] if i in fixed else list(range(len(shape))) for i, shape in enumerate(shapes)]
    ways = [way for way in itertools.product(*choices) if None not in way]
    found: _Trial | None = None
    taken, differs = usual, None
    for way in sorted(ways, key=lambda way: way != usual) if whole else ():
        trial = _try(forward, places, given, states, values, way)
        if trial.deviation is not None and trial.deviation <= NEAR:
            found, taken = trial, way
            break
        if trial.deviation is not None and way == usual:
            differs = trial.deviation
            if any(shape[axis] > 1 for shape, axis in zip(shapes, way, strict=True) if axis is not None):
                raise ExportError(_breaks(forward, differs, given, way, places))
    lengths = {shape[axis] if axis is not None else 1 for shape, axis in zip(shapes, taken, strict=True)}
    if len(lengths) > 1:
        raise ExportError(
            f"the inputs {', '.join(forward.inputs)} have {sorted(lengths)} steps: all inputs of a stream have one "
            'clock. What is set once for a stream is a condition: conditions={"name": tensor}; what is time says '
            'time={"name": axis}'
        )
    outputs = found.outputs if found else _guessed(forward, places, given, states, taken, lengths.pop())
    return ModuleAxes(
        tuple(TensorLayout(batch, axis) for batch, axis in zip(places.given, taken, strict=False)),
        tuple(TensorLayout(batch, timed=False) for batch in places.given[count:]),
        tuple(TensorLayout(batch, timed=False) for batch in places.states),
        tuple(TensorLayout(batch, axis) for batch, axis in zip(places.outputs, outputs, strict=True)),
        places.free,
        found is not None,
        differs,
    )


def _bare(tensor: Tensor, batch: int | None) -> tuple[int, ...]:
    """A shape without its batch axis."""
    return tuple(size for axis, size in enumerate(tensor.shape) if axis != batch)


def _usual(shape: tuple[int, ...], dtype: torch.dtype) -> int | None:
    """The clock by the shape alone: [features] is one step, [ids] are steps; else the axis with one place, or the
    first."""
    if len(shape) < 2:
        return 0 if shape and not dtype.is_floating_point else None
    return shape.index(1) if 1 in shape else 0


def _known(name: str, axis: int | None, batch: int | None, shape: tuple[int, ...]) -> int | None:
    if axis is None:
        return None
    bare = axis - (batch is not None and axis > batch)
    if axis == batch or not 0 <= bare < len(shape):
        raise ExportError(f"time: axis {axis} of {name} is not an axis of time: its batch is axis {batch}")
    return bare


def _raw(axis: int, batch: int | None) -> int:
    """An axis without the batch, counted with it."""
    return axis if batch is None or axis < batch else axis + 1


def _try(
    forward: Forward,
    places: Places,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    values: Values,
    way: tuple[int | None, ...],
) -> _Trial:
    names = (*forward.inputs, *forward.conditions)
    chunks = [
        {name: values(name, tensor.shape) for name, tensor in zip(names, given, strict=True)} for _ in range(CHUNKS)
    ]
    for name in forward.conditions:
        for chunk in chunks:
            chunk[name] = chunks[0][name]
    longer = dict(chunks[0])
    for name, axis, batch in zip(forward.inputs, way, places.given, strict=False):
        assert axis is not None
        longer[name] = torch.cat([chunk[name] for chunk in chunks], _raw(axis, batch))
    try:
        with torch.no_grad():
            each, state = [], list(states)
            for chunk in chunks:
                outputs, state = forward(chunk, state)
                each.append(outputs)
            once, last = forward(longer, states)
    except Exception:  # the module's own: it does not take that length
        return _Trial(None)
    worst = max((far(a, b) for a, b in zip(last, state, strict=True)), default=0.0)
    axes: list[int | None] = []
    for number, (output, batch) in enumerate(zip(once, places.outputs, strict=True)):
        parts = [outputs[number] for outputs in each]
        grown = [axis for axis, (a, b) in enumerate(zip(parts[0].shape, output.shape, strict=False)) if a != b]
        if output.dim() != parts[0].dim() or len(grown) > 1 or batch in grown:
            return _Trial(None)
        axes.append(grown[0] - (batch is not None and grown[0] > batch) if grown else None)
        worst = max(worst, far(output, torch.cat(parts, grown[0]) if grown else parts[-1]))
    return _Trial(worst, tuple(axes)) if worst < float("inf") else _Trial(None)


def _guessed(
    forward: Forward,
    places: Places,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    taken: tuple[int | None, ...],
    length: int,
) -> tuple[int | None, ...]:
    """Where an output has as many places as the chunk has steps: on the input's axis of time, or on the first."""
    with torch.no_grad():
        outputs, _ = forward(dict(zip((*forward.inputs, *forward.conditions), given, strict=True)), states)
    found: list[int | None] = []
    for output, batch in zip(outputs, places.outputs, strict=True):
        shape = _bare(output, batch)
        likely = [] if taken[0] is None else [axis for axis in (taken[0], 0) if axis < len(shape)]
        found.append(next((axis for axis in likely if shape[axis] == length), None))
    return tuple(found)


def _breaks(
    forward: Forward, deviation: float, given: Sequence[Tensor], way: tuple[int | None, ...], places: Places
) -> str:
    name, axis, batch = forward.inputs[0], way[0], places.given[0]
    assert axis is not None
    return (
        f"one call with {CHUNKS} chunks gives other outputs than {CHUNKS} calls with one (off by {deviation:.1g} of "
        f"their largest value), time being axis {_raw(axis, batch)} of {name} {list(given[0].shape)}. Either something "
        "of the past is not in the state (the last inputs of a convolution, a running mean), or forward looks ahead; "
        "or it is right for one length alone: whole=False (--no-whole); or another axis is time: "
        f"time={{{name!r}: axis}}"
    )
