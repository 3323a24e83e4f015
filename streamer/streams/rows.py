"""Parses rows of a model's inputs from bytes, JSON values or arrays. All rows are checked before any is taken.

A *row* is one step of input along time: a number, a vector, or one of each for a model of several inputs. Every error
is a :class:`BadRows` that names the input, the given value and the expected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.arrays import NotNumbers, numbers, within
from streamer.contract.manifest import Condition, Manifest, StreamInput
from streamer.refusals import BadRows
from streamer.streams.front import is_sound

__all__ = ["RowReader", "to_array"]


class RowReader:
    """Parses rows of one model. ``dtype``: of one row, over all inputs."""

    def __init__(self, manifest: Manifest) -> None:
        self.dtype = manifest.row_dtype
        self._sound, self._inputs = is_sound(manifest), manifest.inputs
        self._conditions = {condition.name: condition for condition in manifest.conditions}
        self._bools = [spec.name for spec in self._inputs if spec.dtype == "bool"]

    def of_bytes(self, data: bytes) -> NDArray[Any]:
        """Whole rows, little-endian, the inputs of a row one after the other. Without a copy."""
        if self._sound and len(data) % 2:
            raise BadRows(f"{len(data)} bytes are no whole number of 16-bit samples")
        if len(data) % self.dtype.itemsize:
            raise BadRows(
                f"{len(data)} bytes are no whole number of rows of {self.dtype.itemsize} bytes ({self._layout()}): "
                "none were taken"
            )
        rows = np.frombuffer(data, self.dtype)
        for name in self._bools:
            raw = (rows if self.dtype.names is None else rows[name]).view(np.uint8)
            if len(raw) and int(raw.max()) > 1:
                raise BadRows(f"input {name!r} is bool: a byte of it is 0 or 1, not {int(raw.max())}")
        return rows

    def of_values(self, values: Any) -> NDArray[Any]:
        """``[[...], ...]``: the rows of a model with one input; for several inputs each row is an object."""
        if len(self._inputs) == 1:
            return self._joined({self._inputs[0].name: _rows_of(self._inputs[0], values)})
        if not isinstance(values, list) or not all(isinstance(row, Mapping) for row in values):
            raise BadRows(f"the model has several inputs: give each row by its names ({self._layout()})")
        names = [spec.name for spec in self._inputs]
        for number, row in enumerate(values):
            self._same_names(row, f"row {number}")
        return self.of_inputs({name: [row[name] for row in values] for name in names})

    def of_inputs(self, inputs: Mapping[str, Any]) -> NDArray[Any]:
        """``{"x": [[...], ...], "y": [...]}``: lists or arrays, as many rows of each input."""
        self._same_names(inputs, "the rows")
        parts = {spec.name: _rows_of(spec, inputs[spec.name]) for spec in self._inputs}
        counts = {name: len(part) for name, part in parts.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise BadRows(f"every input has as many rows as the others, here there are {said}")
        return self._joined(parts)

    def conditions(self, given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Conditions of a stream: lists or arrays, by name; omitted ones are zeros."""
        found = {}
        for name, value in given.items():
            spec = self._conditions.get(name)
            if spec is None:
                known = ", ".join(map(_said, self._conditions.values())) or "none"
                raise BadRows(f"no condition {str(name)[:100]!r}: the model has {known}")
            array = to_array(value, spec.dtype, f"condition {name!r}")
            if array.shape != spec.shape:
                raise BadRows(f"condition {name!r} has the shape {list(array.shape)}: {_said(spec)} is expected")
            if spec.limits is not None and array.size and not within(array, *spec.limits):
                low, high = spec.limits
                raise BadRows(f"condition {name!r} is from {low} to {high}, not {int(array.min())}..{int(array.max())}")
            found[name] = array
        return found

    # -- inside ------------------------------------------------------------------------------------------------------

    def _same_names(self, given: Mapping[str, Any], what: str) -> None:
        wanted = {spec.name for spec in self._inputs}
        if not isinstance(given, Mapping) or set(given) != wanted:
            shown = ", ".join(sorted(map(str, given)))[:200] if isinstance(given, Mapping) else "no names at all"
            raise BadRows(f"{what} must have exactly the inputs {self._layout()}, not {shown or 'none'}")

    def _joined(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Join the inputs, with equal numbers of rows, into rows of :attr:`dtype`."""
        if self.dtype.names is None:
            return next(iter(parts.values()))
        rows = np.empty(len(next(iter(parts.values()))), self.dtype)
        for name, part in parts.items():
            rows[name] = part
        return rows

    def _layout(self) -> str:
        return ", ".join(_said(spec) for spec in self._inputs)


def to_array(values: Any, dtype: str, what: str) -> NDArray[Any]:
    """:func:`streamer.arrays.numbers` that raises :class:`BadRows`."""
    try:
        return numbers(values, dtype, what)
    except NotNumbers as error:
        raise BadRows(str(error)) from None


def _rows_of(spec: StreamInput, values: Any) -> NDArray[Any]:
    """[rows, ...] of one input."""
    what = f"input {spec.name!r}"
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise BadRows(f"{what} is a list of rows, each {_said(spec)}")
    array = to_array(values, spec.dtype, what)
    shape = spec.chunk_shape[1:]
    if len(values) == 0:
        return np.zeros((0, *shape), np.dtype(spec.dtype))
    if array.shape[1:] != shape:
        raise BadRows(f"a row of {what} has the shape {list(array.shape[1:])}: {_said(spec)} is expected")
    return array


def _said(spec: StreamInput | Condition) -> str:
    shape = spec.shape if isinstance(spec, Condition) else spec.chunk_shape[1:]
    return f"{spec.name} {spec.dtype} {list(shape)}" if shape else f"{spec.name} {spec.dtype}"
