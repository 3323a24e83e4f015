"""An inference request and its response, the same for HTTP and gRPC, and Triton's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.tensors import NamedTensor
from streamer.whole import whole

__all__ = ["InferAnswer", "InferRequest", "SequenceFlags", "WantedOutput", "read_parameters"]

#: Longest id of a sequence or of a request, in characters: Triton's own bound for ids of text.
MAX_ID = 128
MAX_UNSIGNED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SequenceFlags:
    """``id``: 1 to 2^64 - 1, or text; 42 and "42" are different sequences. ``position``: the client's count of rows
    taken before this request, ``None`` if it gave none.
    """

    id: int | str
    start: bool = False
    end: bool = False
    position: int | None = None


@dataclass(frozen=True, slots=True)
class WantedOutput:
    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """``timeout``: seconds. ``outputs``: empty for all, ``binary`` or not. ``final``: the response is to be marked as
    the last one of its request (``triton_enable_empty_final_response``).
    """

    inputs: tuple[NamedTensor, ...]
    id: str = ""
    sequence: SequenceFlags | None = None
    timeout: float | None = None
    outputs: tuple[WantedOutput, ...] = ()
    binary: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class InferAnswer:
    model: str
    version: str
    id: str
    outputs: tuple[NamedTensor, ...]
    parameters: Mapping[str, int | bool] = field(default_factory=dict)


def read_parameters(given: Mapping[str, Any]) -> tuple[SequenceFlags | None, float | None]:
    """The sequence and the timeout in seconds. Other parameters are ignored. Raises :class:`KServeError`."""
    given = {name: whole(value) for name, value in given.items()}
    timeout = given.get("timeout", 0)
    if not _integer(timeout) or timeout < 0:
        raise KServeError(400, "the parameter 'timeout' must be a number of microseconds")
    seconds = timeout / 1e6 if timeout else None
    id = given.get("sequence_id", 0)
    if not (isinstance(id, str) or (_integer(id) and 0 <= id <= MAX_UNSIGNED)):
        raise KServeError(400, "the parameter 'sequence_id' must be an unsigned integer of 64 bits or a string")
    if isinstance(id, str) and len(id) > MAX_ID:
        raise KServeError(400, f"the parameter 'sequence_id' has {len(id)} characters, {MAX_ID} is the bound")
    if id in (0, ""):
        return None, seconds
    for flag in ("sequence_start", "sequence_end"):
        if not isinstance(given.get(flag, False), bool):
            raise KServeError(400, f"the parameter '{flag}' must be a boolean")
    position = given.get("sequence_position")
    if position is not None and (not _integer(position) or position < 0):
        raise KServeError(400, "the parameter 'sequence_position' must be a number of rows")
    start, end = given.get("sequence_start", False), given.get("sequence_end", False)
    return SequenceFlags(id, start, end, position), seconds


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
