"""A task's memory as bytes: a JSON header, then plain arrays. The format is portable, and loading it runs no code."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack", "unpack"]

MAGIC = b"STM1"
#: The dtype strings that :func:`pack` writes.
PLAIN = re.compile(r"[<>|=][a-zA-Z?]\d{0,6}")


def pack(facts: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """``facts``: JSON values. Little-endian, row-major, no padding: the same contents give the same bytes."""
    little = [np.asarray(a, a.dtype.newbyteorder("<"), order="C") for a in arrays]
    head = json.dumps(
        {"facts": facts, "arrays": [[a.dtype.str, list(a.shape)] for a in little]},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    return b"".join([MAGIC, struct.pack("<I", len(head)), head, *(a.tobytes() for a in little)])


def unpack(data: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The inverse of :func:`pack`; the arrays are writable copies. Raises ``ValueError`` on anything else."""
    try:
        if data[:4] != MAGIC:
            raise ValueError("the mark at its start is missing")
        (length,) = struct.unpack_from("<I", data, 4)
        head = json.loads(data[8 : 8 + length])
        at, arrays = 8 + length, []
        for dtype, shape in head["arrays"]:
            if not PLAIN.fullmatch(dtype):  # NumPy would evaluate it
                raise ValueError(f"{dtype[:40]!r} is not the dtype of a saved array")
            kind = np.dtype(dtype)
            if not all(isinstance(length, int) and length >= 0 for length in shape):
                raise ValueError(f"{str(shape)[:40]} is not a shape")
            count = math.prod(shape)
            if kind.hasobject:
                raise ValueError("arrays of Python objects are not allowed")
            arrays.append(np.frombuffer(data, kind, count, at).reshape(shape).astype(kind.newbyteorder("=")))
            at += count * kind.itemsize
        if at != len(data):
            raise ValueError("it is longer than its header says")
        facts = head["facts"]
        if not isinstance(facts, dict):
            raise ValueError("its facts are missing")
        return facts, arrays
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, struct.error) as error:
        raise ValueError(f"not a saved task memory: {error}") from error
