"""KServe v2's tensors: a name, a datatype, a shape, and numbers as JSON or as little-endian bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamer.refusals import BadRows
from streamer.serve.kserve.errors import KServeError
from streamer.streams.rows import to_array

__all__ = ["DATATYPES", "NamedTensor", "datatype_of", "listed", "parse_bytes", "parse_numbers", "raw_bytes"]

#: KServe's datatypes for a manifest's dtypes. No model has BYTES or BF16.
DATATYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {np.dtype(dtype): datatype for datatype, dtype in DATATYPES.items()}
MAX_AXES = 16


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor. ``array`` includes the batch axis and has native byte order."""

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        return _NAMES[self.array.dtype]


def datatype_of(dtype: DTypeLike) -> str:
    """KServe's datatype for a manifest's dtype."""
    return _NAMES[np.dtype(dtype).newbyteorder("=")]


def parse_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> NamedTensor:
    """Parse little-endian, row-major bytes. Raises :class:`KServeError`."""
    dtype = _dtype(name, datatype, shape)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        text = f"input '{name}' has {len(data)} bytes, and {list(shape)} of {datatype} are {wanted}"
        raise KServeError(400, text)
    if dtype.kind == "b":
        array = np.frombuffer(data, np.uint8) != 0
    else:
        array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return NamedTensor(name, array.reshape(shape))


def parse_numbers(name: str, datatype: str, shape: tuple[int, ...], numbers: Any) -> NamedTensor:
    """Parse JSON lists, flat or nested, or a message's field. Raises :class:`KServeError`."""
    dtype = _dtype(name, datatype, shape)
    try:
        found = to_array(numbers, dtype.name, f"input '{name}'")
    except BadRows as error:
        raise KServeError(400, str(error)) from None
    if found.size != math.prod(shape):
        text = f"input '{name}' has {found.size} numbers, and its shape {list(shape)} has {math.prod(shape)}"
        raise KServeError(400, text)
    return NamedTensor(name, found.reshape(shape))


def raw_bytes(array: NDArray[Any]) -> bytes:
    """Little-endian, row-major bytes."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def listed(array: NDArray[Any]) -> list[Any]:
    """The flat list for JSON."""
    found: list[Any] = array.reshape(-1).tolist()
    return found


def _dtype(name: str, datatype: str, shape: tuple[int, ...]) -> np.dtype[Any]:
    if datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise KServeError(400, f"input '{name}' has the datatype {datatype[:20]!r}: no model here takes it ({known})")
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise KServeError(400, f"input '{name}' has the shape {list(shape[:20])}: it is no shape")
    return np.dtype(DATATYPES[datatype])
