"""Finds the batch axis of a module's tensors by running it: each row of a batch must give what it gives alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.forward import Forward

__all__ = ["BatchAxes", "TensorLayout", "Values", "find_batch", "fixed_batch", "relative_error"]

#: Batch size of a trial: more than one, and unlikely as the size of another axis.
ROWS = 3
#: Maximum number of placements of the batch axis that are tried, the likeliest first.
MOST_PLACEMENTS = 512
#: Relative tolerance; a wrong axis deviates far more.
TOLERANCE = 1e-3

#: Makes test values from the name of an input or condition and a shape.
Values = Callable[[str, Sequence[int]], Tensor]


@dataclass(frozen=True)
class TensorLayout:
    """Converts between a module's tensor and the file's, which has the batch on axis 0 and, if it is an input or an
    output, time on axis 1.

    ``batch``: the batch axis in the module's tensor; ``None``: it has none, and the file takes one stream a call.
    ``time``: the time axis after the batch axis is removed; ``None``: the tensor is one step (an output: one for each
    chunk). ``timed``: whether it is an input or an output; states and conditions have no time.
    """

    batch: int | None
    time: int | None = None
    timed: bool = True

    def inward(self, tensor: Tensor) -> Tensor:
        """Convert the file's tensor to the module's."""
        if self.timed:
            tensor = tensor.squeeze(1) if self.time is None else tensor.movedim(1, self.time + 1)
        return tensor.squeeze(0) if self.batch is None else tensor.movedim(0, self.batch)

    def outward(self, tensor: Tensor) -> Tensor:
        """Convert the module's tensor to the file's."""
        tensor = tensor.unsqueeze(0) if self.batch is None else tensor.movedim(self.batch, 0)
        if self.timed:
            tensor = tensor.unsqueeze(1) if self.time is None else tensor.movedim(self.time + 1, 1)
        return tensor


@dataclass(frozen=True)
class BatchAxes:
    """The batch axis of every tensor; ``None``: it has none. ``given``: inputs, then conditions. ``free``: the batch
    may have any size."""

    given: tuple[int | None, ...]
    states: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    free: bool


def find_batch(forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor], values: Values) -> BatchAxes | None:
    """The batch axes; ``None`` if no placement keeps rows independent, or the module takes only one stream."""
    tensors = [*given, *states]
    tried: set[tuple[int, ...]] = set()
    for placement in itertools.islice(_placements(tensors), MOST_PLACEMENTS):
        if placement in tried:
            continue
        tried.add(placement)
        outputs = _batched_outputs(forward, given, states, placement, values)
        if outputs is not None:
            return BatchAxes(placement[: len(given)], placement[len(given) :], outputs, True)
    return None


def fixed_batch(forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor]) -> BatchAxes:
    """The batch axes for one stream a call: the first axis of an input whose size is 1, unless it is the only axis."""
    first = tuple(0 if tensor.dim() > 1 and tensor.shape[0] == 1 else None for tensor in given)
    with torch.no_grad():
        outputs, _ = forward(dict(zip((*forward.inputs, *forward.conditions), given, strict=True)), states)
    back = tuple(0 if first[0] == 0 and o.dim() > 1 and o.shape[0] == 1 else None for o in outputs)
    return BatchAxes(first, tuple(None for _ in states), back, False)


def _placements(tensors: Sequence[Tensor]) -> Iterator[tuple[int, ...]]:
    """Candidates: one axis for each tensor, all of the same size; tensors of the same shape use the same axis."""
    for size in dict.fromkeys(tensors[0].shape):
        shapes = dict.fromkeys(tuple(tensor.shape) for tensor in tensors)
        candidates = [[axis for axis, length in enumerate(shape) if length == size] for shape in shapes]
        for chosen in itertools.product(*candidates):
            place = dict(zip(shapes, chosen, strict=True))
            yield tuple(place[tuple(tensor.shape)] for tensor in tensors)


def _batched_outputs(
    forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor], placement: tuple[int, ...], values: Values
) -> tuple[int, ...] | None:
    """The outputs' batch axes, if the second call of three streams in one batch gives what it gives for each alone;
    ``None``: it does not."""
    names, axes, kept = (*forward.inputs, *forward.conditions), placement[: len(given)], placement[len(given) :]
    alone: list[tuple[list[Tensor], list[Tensor]]] = []
    second: list[dict[str, Tensor]] = []
    aged: list[list[Tensor]] = []
    start = [tensor.narrow(axis, 0, 1) for tensor, axis in zip(states, kept, strict=True)]
    shapes = [[1 if i == axis else n for i, n in enumerate(t.shape)] for t, axis in zip(given, axes, strict=True)]
    try:
        with torch.no_grad():
            for _ in range(ROWS):
                first = {name: values(name, shape) for name, shape in zip(names, shapes, strict=True)}
                again = {name: values(name, shape) for name, shape in zip(names, shapes, strict=True)}
                _, state = forward(first, start)
                alone.append(forward(again, state))
                second.append(again)
                aged.append(state)
            joined = {n: torch.cat([row[n] for row in second], axis) for n, axis in zip(names, axes, strict=True)}
            states_now = [torch.cat([row[i] for row in aged], axis) for i, axis in enumerate(kept)]
            outputs, new = forward(joined, states_now)
    except Exception:  # raised by the module, which does not take the batch there
        return None
    places = [_place(one, all_) for one, all_ in zip(alone[0][0], outputs, strict=True)]
    found = tuple(axis for axis in places if axis is not None)
    if len(found) < len(places):
        return None
    for row, (one, state) in enumerate(alone):
        for tensor, joint, axis in (*zip(one, outputs, found, strict=True), *zip(state, new, kept, strict=True)):
            if joint.shape[axis] != ROWS or relative_error(joint.narrow(axis, row, 1), tensor) > TOLERANCE:
                return None
    return found


def _place(one: Tensor, several: Tensor) -> int | None:
    """The one axis that grew from 1 to the number of rows."""
    if one.dim() != several.dim():
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(one.shape, several.shape, strict=True)) if a != b]
    return grown[0] if len(grown) == 1 and (one.shape[grown[0]], several.shape[grown[0]]) == (1, ROWS) else None


def relative_error(got: Tensor, want: Tensor) -> float:
    """The largest difference over the largest value of ``want``; infinite if shape, dtype or finiteness differ."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if got.numel() == 0:
        return 0.0
    a, b = got.double(), want.double()
    fine = torch.isfinite(b)
    if not torch.equal(fine, torch.isfinite(a)):
        return float("inf")
    a, b = a.where(fine, torch.zeros(())), b.where(fine, torch.zeros(()))
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
