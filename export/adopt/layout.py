"""Layouts of the foreign graph's tensors relative to the contract, where the batch is axis 0 and time axis 1.

A *canonical* array is [batch, ...] as in the contract; a *raw* array is as the foreign graph takes it. Every raw axis
holds one canonical axis, or none (its size is 1), or two if the batch is folded into another axis: ``[B * 33, 16]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxisLayout"]


@dataclass(frozen=True)
class AxisLayout:
    """``shape``: canonical, without batch. ``groups``: for every raw axis the canonical axes in it (0: the batch).

    If no group holds axis 0, the graph has no batch axis, and its batch is 1.
    """

    shape: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def moved(cls, raw: tuple[int, ...], batch: int | None) -> AxisLayout:
        """The layout with the batch on raw axis ``batch`` (``None``: nowhere) and all other axes in their order.
        ``raw``: sizes at batch 1.

        If the size of axis ``batch`` at batch 1 is above 1, the batch is folded into it.
        """
        if batch is None:
            if not raw:
                return cls((1,), ())
            return cls(raw, tuple((axis + 1,) for axis in range(len(raw))))
        if raw[batch] > 1:
            return cls(raw, tuple((0, axis + 1) if axis == batch else (axis + 1,) for axis in range(len(raw))))
        shape = raw[:batch] + raw[batch + 1 :]
        if not shape:  # [B]: the contract needs an axis apart from the batch
            return cls((1,), ((0,),))
        return cls(shape, tuple((0,) if axis == batch else (axis + (axis < batch),) for axis in range(len(raw))))

    def then(self, first: int) -> AxisLayout:
        """The layout with canonical axis ``first`` as the time axis (axis 1); the others follow in their order."""
        order = [first, *(axis for axis in range(1, len(self.shape) + 1) if axis != first)]
        shape = tuple(self.shape[axis - 1] for axis in order)
        places = {0: 0} | {axis: place for place, axis in enumerate(order, 1)}
        return AxisLayout(shape, tuple(tuple(places[axis] for axis in group) for group in self.groups))

    def labelled(self) -> AxisLayout:
        """The layout with a time axis of one step, which the raw tensor does not have."""
        return AxisLayout((1, *self.shape), tuple(tuple(a + 1 if a else 0 for a in group) for group in self.groups))

    # -- sizes and conversion ------------------------------------------------------------------------------------------

    @property
    def batched(self) -> bool:
        """Whether the raw tensor has a batch axis."""
        return any(0 in group for group in self.groups)

    @property
    def order(self) -> tuple[int, ...]:
        """The canonical axes that the raw tensor has, in its order."""
        return tuple(axis for group in self.groups for axis in group)

    @property
    def split(self) -> tuple[int, ...]:
        """Sizes of the axes in :attr:`order`, -1 for the batch."""
        return tuple(-1 if axis == 0 else self.shape[axis - 1] for axis in self.order)

    @property
    def raw(self) -> tuple[int, ...]:
        """Sizes of the raw tensor, -1 for the axis with the batch."""
        return tuple(
            -1 if 0 in group else int(np.prod([self.shape[axis - 1] for axis in group], dtype=np.int64))
            for group in self.groups
        )

    def raw_at(self, batch: int) -> tuple[int, ...]:
        """Sizes of the raw tensor at this batch."""
        sizes = (batch, *self.shape)
        return tuple(int(np.prod([sizes[axis] for axis in group], dtype=np.int64)) for group in self.groups)

    def axis(self) -> int | None:
        """The raw axis with the batch; ``None``: none has it."""
        return next((number for number, group in enumerate(self.groups) if 0 in group), None)

    def inward(self, array: NDArray[Any]) -> NDArray[Any]:
        """Convert an array from canonical to raw."""
        kept = [axis for axis in range(array.ndim) if axis in self.order]
        array = array.reshape([array.shape[axis] for axis in kept])
        turned = array.transpose([kept.index(axis) for axis in self.order])
        return np.ascontiguousarray(turned).reshape(self.raw if self.batched else self.raw_at(1))

    def outward(self, array: NDArray[Any]) -> NDArray[Any]:
        """Convert an array from raw to canonical."""
        parts = array.reshape(self.split)
        turned = parts.transpose([self.order.index(axis) for axis in sorted(self.order)])
        return np.ascontiguousarray(turned).reshape(-1 if self.batched else 1, *self.shape)
