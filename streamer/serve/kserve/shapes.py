"""Checks a request's tensors against the manifest: rows of the stream inputs, conditions, and requested outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest, Output
from streamer.refusals import BadRows
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.messages import InferRequest
from streamer.serve.kserve.tensors import NamedTensor, datatype_of
from streamer.streams.rows import RowReader

__all__ = ["RequestReader"]

Array = NDArray[Any]


class RequestReader:
    """Reads requests for one model. Every error is a :class:`KServeError` with status 400."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._rows = RowReader(manifest)
        self._inputs = {spec.name: (spec.dtype, spec.chunk_shape) for spec in manifest.inputs}
        self._conditions = {spec.name: (spec.dtype, spec.shape) for spec in manifest.conditions}
        self._outputs = {output.name: output for output in manifest.outputs}

    def rows(self, request: InferRequest) -> tuple[Array, dict[str, Array]]:
        """Rows [n], n a multiple of the chunk, and conditions by name. No rows are allowed only at the end of a
        sequence."""
        given = self._named(request)
        rows = {name: self._stream_input(name, given.pop(name)) for name in self._inputs if name in given}
        if missing := [name for name in self._inputs if name not in rows]:
            raise self._bad(f"input '{missing[0]}' is missing: expected {len(self._inputs)} inputs but got {len(rows)}")
        conditions = {name: self._condition(name, tensor) for name, tensor in given.items()}
        flags = request.sequence
        if conditions and flags is not None and not flags.start:
            name = next(iter(conditions))
            raise self._bad(f"input '{name}' is set once for a sequence: give it with sequence_start")
        try:
            found, conditions = self._rows.of_inputs(rows), self._rows.conditions(conditions)
        except BadRows as error:
            raise self._bad(str(error)) from None
        if len(found) == 0 and (flags is None or not flags.end):
            raise self._bad(f"no rows: 0 of them may only come with sequence_end, else {self.manifest.chunk} or more")
        return found, conditions

    def outputs(self, request: InferRequest) -> list[Output]:
        """The requested outputs in the request's order, or all in the manifest's order."""
        if not request.outputs:
            return list(self.manifest.outputs)
        for wanted in request.outputs:
            if wanted.name not in self._outputs:
                raise self._bad(f"unexpected inference output '{wanted.name[:100]}': it has {', '.join(self._outputs)}")
        return [self._outputs[wanted.name] for wanted in request.outputs]

    def raw_shape(self, size: int) -> tuple[str, str, tuple[int, ...]]:
        """Name, datatype and shape of a body of ``size`` bytes that is a single raw tensor."""
        if len(self._inputs) != 1:
            raise self._bad(f"it has {len(self._inputs)} inputs: a body of bytes alone is for one")
        ((name, (dtype, shape)),) = self._inputs.items()
        row = np.dtype(dtype).itemsize * int(np.prod(shape[1:], dtype=np.int64))
        return name, datatype_of(dtype), (1, size // row, *shape[1:])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _named(self, request: InferRequest) -> dict[str, NamedTensor]:
        given: dict[str, NamedTensor] = {}
        for tensor in request.inputs:
            expected = self._inputs.get(tensor.name) or self._conditions.get(tensor.name)
            if expected is None:
                raise self._bad(f"unexpected inference input '{tensor.name[:100]}': it has {', '.join(self._inputs)}")
            if tensor.name in given:
                raise self._bad(f"input '{tensor.name}' is given twice")
            if tensor.array.dtype != expected[0]:
                text = f"has the datatype {tensor.datatype}, it expects {datatype_of(expected[0])}"
                raise self._bad(f"input '{tensor.name}' {text}")
            given[tensor.name] = tensor
        return given

    def _stream_input(self, name: str, tensor: NamedTensor) -> Array:
        """An input as [rows, ...] without the batch axis."""
        shape, (_, chunk) = tensor.array.shape, self._inputs[name]
        if len(shape) != 1 + len(chunk) or shape[2:] != chunk[1:] or shape[0] != 1 or shape[1] % chunk[0]:
            several = f", or a multiple of {chunk[0]} rows" if chunk[0] > 1 else ", or any number of rows"
            raise self._bad(
                f"input '{name}' has the shape {list(shape)}, it expects {[1, *chunk]}{several}"
                + (": one sequence a request, the batch is 1" if shape and shape[0] != 1 else "")
            )
        array: Array = tensor.array[0]
        return array

    def _condition(self, name: str, tensor: NamedTensor) -> Array:
        wanted = (1, *self._conditions[name][1])
        if tensor.array.shape != wanted:
            raise self._bad(f"input '{name}' has the shape {list(tensor.array.shape)}, it expects {list(wanted)}")
        array: Array = tensor.array[0]
        return array

    def _bad(self, text: str) -> KServeError:
        return KServeError(400, f"model '{self.manifest.name}': {text}")
