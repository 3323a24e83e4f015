"""Finds the batch axis of a module's tensors by running it: rows in a batch must give what each gives alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.forward import Forward

__all__ = ["Places", "TensorLayout", "Values", "far", "find_batch", "fixed_batch"]

#: Batch size of the trial: more than one, and unlikely as the size of another axis.
ROWS = 3
#: Most placements of the batch axis that are tried, the likeliest first.
MOST_WAYS = 512
#: Relative tolerance; a wrong axis deviates far more.
NEAR = 1e-3

#: Values to try, by the name of an input or condition and the shape that is wanted.
Values = Callable[[str, Sequence[int]], Tensor]


@dataclass(frozen=True)
class TensorLayout:
    """A module's tensor beside the file's, which has the batch on axis 0 and, of inputs and outputs, time on axis 1.

    ``batch``: its axis in the module's tensor; ``None`` for no batch axis: the file takes one stream a call.
    ``time``: the axis of time once the batch is gone; ``None``: the tensor is one step (of an output: one a chunk).
    ``timed``: whether it is an input or an output; states and conditions have no time.
    """

    batch: int | None
    time: int | None = None
    timed: bool = True

    def inward(self, tensor: Tensor) -> Tensor:
        """The file's tensor, as the module takes it."""
        if self.timed:
            tensor = tensor.squeeze(1) if self.time is None else tensor.movedim(1, self.time + 1)
        return tensor.squeeze(0) if self.batch is None else tensor.movedim(0, self.batch)

    def outward(self, tensor: Tensor) -> Tensor:
        """The module's tensor, as the file has it."""
        tensor = tensor.unsqueeze(0) if self.batch is None else tensor.movedim(self.batch, 0)
        if self.timed:
            tensor = tensor.unsqueeze(1) if self.time is None else tensor.movedim(self.time + 1, 1)
        return tensor


@dataclass(frozen=True)
class Places:
    """The batch axis of every tensor; ``given``: of inputs, then conditions."""

    given: tuple[int | None, ...]
    states: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    free: bool


def find_batch(forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor], values: Values) -> Places | None:
    """The batch axes; ``None`` if no placement keeps rows separate, or the module takes only one stream."""
    tensors = [*given, *states]
    tried: set[tuple[int, ...]] = set()
    for way in itertools.islice(_ways(tensors), MOST_WAYS):
        if way in tried:
            continue
        tried.add(way)
        outputs = _rows_apart(forward, given, states, way, values)
        if outputs is not None:
            return Places(way[: len(given)], way[len(given) :], outputs, True)
    return None


def fixed_batch(forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor]) -> Places:
    """One stream a call. An input's first axis is still taken for the batch where it is 1 and not the only one."""
    first = tuple(0 if tensor.dim() > 1 and tensor.shape[0] == 1 else None for tensor in given)
    with torch.no_grad():
        outputs, _ = forward(dict(zip((*forward.inputs, *forward.conditions), given, strict=True)), states)
    back = tuple(0 if first[0] == 0 and o.dim() > 1 and o.shape[0] == 1 else None for o in outputs)
    return Places(first, tuple(None for _ in states), back, False)


def _ways(tensors: Sequence[Tensor]) -> Iterator[tuple[int, ...]]:
    """Candidates: axes of the same size, one for each tensor; tensors of the same shape use the same axis."""
    for size in dict.fromkeys(tensors[0].shape):
        shapes = dict.fromkeys(tuple(tensor.shape) for tensor in tensors)
        candidates = [[axis for axis, length in enumerate(shape) if length == size] for shape in shapes]
        for chosen in itertools.product(*candidates):
            place = dict(zip(shapes, chosen, strict=True))
            yield tuple(place[tuple(tensor.shape)] for tensor in tensors)


def _rows_apart(
    forward: Forward, given: Sequence[Tensor], states: Sequence[Tensor], way: tuple[int, ...], values: Values
) -> tuple[int, ...] | None:
    """The outputs' batch axes, if three streams in their second call side by side are what they are alone."""
    names, axes, kept = (*forward.inputs, *forward.conditions), way[: len(given)], way[len(given) :]
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
    except Exception:  # the module's own: it does not take the batch there
        return None
    places = [_place(one, all_) for one, all_ in zip(alone[0][0], outputs, strict=True)]
    found = tuple(axis for axis in places if axis is not None)
    if len(found) < len(places):
        return None
    for row, (one, state) in enumerate(alone):
        for tensor, joint, axis in (*zip(one, outputs, found, strict=True), *zip(state, new, kept, strict=True)):
            if joint.shape[axis] != ROWS or far(joint.narrow(axis, row, 1), tensor) > NEAR:
                return None
    return found


def _place(one: Tensor, several: Tensor) -> int | None:
    """The one axis that grew from 1 to the number of rows."""
    if one.dim() != several.dim():
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(one.shape, several.shape, strict=True)) if a != b]
    return grown[0] if len(grown) == 1 and (one.shape[grown[0]], several.shape[grown[0]]) == (1, ROWS) else None


def far(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest value; infinite where shape or finiteness differ."""
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
