"""Finds the time axis by the chunk law: one call with three chunks must give what three calls give.

If a module takes only the example's length, the shape decides: one step is a row of features, or time is the axis of
size one. The tool prints its choice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.axes import TOLERANCE, BatchAxes, TensorLayout, Values, relative_error
from export.forward import ExportError, Forward

__all__ = ["ModuleAxes", "find_time"]

CHUNKS = 3


@dataclass(frozen=True)
class ModuleAxes:
    """A layout for every tensor. ``free``: the batch may have any size.

    ``whole``: a trial has shown that one call may have any number of chunks; else the shape alone decides what is time,
    and PyTorch is run chunk by chunk. ``differs``: the deviation of a call with several steps, for a module that is
    called with one step. Its outputs then do not depend on how a stream is cut, so the chunk law holds anyway.
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
    """The result of one trial. ``deviation``: ``None`` if the trial failed; ``outputs``: the outputs' time axes."""

    deviation: float | None
    outputs: tuple[int | None, ...] = ()


def find_time(
    forward: Forward,
    places: BatchAxes,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    values: Values,
    *,
    time: Mapping[str, int | None],
    whole: bool,
) -> ModuleAxes:
    """Find the time axes. ``time``: axes that are known, in the module's tensors. ``whole``: False if longer calls are
    wrong, so that none is tried.

    Raises :class:`ExportError` if a longer call runs and gives other outputs, or if the inputs differ in their steps.
    """
    count = len(forward.inputs)
    shapes = [_bare(tensor, axis) for tensor, axis in zip(given[:count], places.given, strict=False)]
    usual = tuple(_usual(shape, tensor.dtype) for shape, tensor in zip(shapes, given, strict=False))
    fixed = {
        i: _known(name, time[name], places.given[i], shapes[i]) for i, name in enumerate(forward.inputs) if name in time
    }
    usual = tuple(fixed.get(i, axis) for i, axis in enumerate(usual))
    choices = [[fixed[i]] if i in fixed else list(range(len(shape))) for i, shape in enumerate(shapes)]
    candidates = [candidate for candidate in itertools.product(*choices) if None not in candidate]
    found: _Trial | None = None
    taken, differs = usual, None
    for candidate in sorted(candidates, key=lambda candidate: candidate != usual) if whole else ():
        trial = _try(forward, places, given, states, values, candidate)
        if trial.deviation is not None and trial.deviation <= TOLERANCE:
            found, taken = trial, candidate
            break
        if trial.deviation is not None and candidate == usual:
            differs = trial.deviation
            if any(shape[axis] > 1 for shape, axis in zip(shapes, candidate, strict=True) if axis is not None):
                raise ExportError(_breaks(forward, differs, given, candidate, places))
    lengths = {shape[axis] if axis is not None else 1 for shape, axis in zip(shapes, taken, strict=True)}
    if len(lengths) > 1:
        raise ExportError(
            f"the inputs {', '.join(forward.inputs)} have {sorted(lengths)} steps: all inputs of a stream have one "
            'clock. An input that is set once for a stream is a condition: conditions={"name": tensor}. To choose the '
            'time axis, say time={"name": axis}'
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
    """The time axis by shape and dtype alone: a float vector is one step (``None``), an integer vector is a sequence of
    steps; else the axis of size 1, or the first axis."""
    if len(shape) < 2:
        return 0 if shape and not dtype.is_floating_point else None
    return shape.index(1) if 1 in shape else 0


def _known(name: str, axis: int | None, batch: int | None, shape: tuple[int, ...]) -> int | None:
    """The user's time axis, without the batch axis. Raises :class:`ExportError` if the tensor has no such axis."""
    if axis is None:
        return None
    bare = axis - (batch is not None and axis > batch)
    if axis == batch or not 0 <= bare < len(shape):
        raise ExportError(f"time: axis {axis} of {name} is not an axis of time: its batch is axis {batch}")
    return bare


def _raw(axis: int, batch: int | None) -> int:
    """The index of an axis in the module's tensor, from its index without the batch axis."""
    return axis if batch is None or axis < batch else axis + 1


def _try(
    forward: Forward,
    places: BatchAxes,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    values: Values,
    candidate: tuple[int | None, ...],
) -> _Trial:
    """Compare one call with three chunks with three calls, time being on the axes of ``candidate``."""
    names = (*forward.inputs, *forward.conditions)
    chunks = [
        {name: values(name, tensor.shape) for name, tensor in zip(names, given, strict=True)} for _ in range(CHUNKS)
    ]
    for name in forward.conditions:
        for chunk in chunks:
            chunk[name] = chunks[0][name]
    longer = dict(chunks[0])
    for name, axis, batch in zip(forward.inputs, candidate, places.given, strict=False):
        assert axis is not None
        longer[name] = torch.cat([chunk[name] for chunk in chunks], _raw(axis, batch))
    try:
        with torch.no_grad():
            each, state = [], list(states)
            for chunk in chunks:
                outputs, state = forward(chunk, state)
                each.append(outputs)
            once, last = forward(longer, states)
    except Exception:  # raised by the module, which does not take that length
        return _Trial(None)
    worst = max((relative_error(a, b) for a, b in zip(last, state, strict=True)), default=0.0)
    axes: list[int | None] = []
    for number, (output, batch) in enumerate(zip(once, places.outputs, strict=True)):
        parts = [outputs[number] for outputs in each]
        grown = [axis for axis, (a, b) in enumerate(zip(parts[0].shape, output.shape, strict=False)) if a != b]
        if output.dim() != parts[0].dim() or len(grown) > 1 or batch in grown:
            return _Trial(None)
        axes.append(grown[0] - (batch is not None and grown[0] > batch) if grown else None)
        worst = max(worst, relative_error(output, torch.cat(parts, grown[0]) if grown else parts[-1]))
    return _Trial(worst, tuple(axes)) if worst < float("inf") else _Trial(None)


def _guessed(
    forward: Forward,
    places: BatchAxes,
    given: Sequence[Tensor],
    states: Sequence[Tensor],
    taken: tuple[int | None, ...],
    length: int,
) -> tuple[int | None, ...]:
    """The outputs' time axes by shape alone: the first input's time axis or the first axis, if its size is the number
    of steps."""
    with torch.no_grad():
        outputs, _ = forward(dict(zip((*forward.inputs, *forward.conditions), given, strict=True)), states)
    found: list[int | None] = []
    for output, batch in zip(outputs, places.outputs, strict=True):
        shape = _bare(output, batch)
        likely = [] if taken[0] is None else [axis for axis in (taken[0], 0) if axis < len(shape)]
        found.append(next((axis for axis in likely if shape[axis] == length), None))
    return tuple(found)


def _breaks(
    forward: Forward, deviation: float, given: Sequence[Tensor], candidate: tuple[int | None, ...], places: BatchAxes
) -> str:
    name, axis, batch = forward.inputs[0], candidate[0], places.given[0]
    assert axis is not None
    return (
        f"one call with {CHUNKS} chunks gives other outputs than {CHUNKS} calls with one (off by {deviation:.1g} of "
        f"their largest value), if time is axis {_raw(axis, batch)} of {name} {list(given[0].shape)}. Either the state "
        "lacks part of the past (the last inputs of a convolution, a running mean), or forward looks ahead, or forward "
        "is right for one length only: whole=False (--no-whole), or another axis is time: "
        f"time={{{name!r}: axis}}"
    )
