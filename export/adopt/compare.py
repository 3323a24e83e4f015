"""Compares the adopted file with inputs and outputs recorded by the user's own host, in two ``.npz`` files.

The laws can't detect swapped states, a wrong axis or a missing initial value: a file with such a fault is still a valid
model. Only recordings of the host show it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.chain import ChainOutput, GraphChain
from export.adopt.plan import StatePlan
from export.adopt.report import AdoptionError, listed
from export.adopt.stream import InputStream
from streamer.contract.judge import CHUNK_TOLERANCE
from streamer.contract.manifest import StreamInput
from streamer.contract.probe import Signal, deviation, run
from streamer.engine.model import Model

__all__ = ["compare_with"]

Array = NDArray[Any]
#: Tolerance of float16, where a sum in another order is another number.
HALF_TOLERANCE = 1e-2


def compare_with(model: Model, chain: GraphChain, files: tuple[Path, Path]) -> str:
    """Compare, and return a line for the report. ``files``: inputs and outputs from the start of one stream. Raises
    :class:`AdoptionError` if they do not fit the model, or if the outputs differ."""
    given, wanted = (_read(path) for path in files)
    part = chain.parts[0].part
    specs = dict(zip((s.name for s in part.streams), (chain.input, *chain.more), strict=True))
    known = {*specs, chain.input.name, *(c.name for c in part.conditions)}
    if strange := sorted(set(given) - known):
        raise AdoptionError(f"{files[0]} has {listed(strange)}, which the model does not take: {listed(sorted(known))}")
    inputs = {}
    for stream in part.streams:
        spec = specs[stream.name]
        array = given.get(stream.name, given.get(spec.name))
        if array is None:
            raise AdoptionError(f"{files[0]} has no {stream.name}: save the host's inputs of the model, by their names")
        inputs[spec.name] = _chunks(array, stream, spec, chain, files[0])
    calls = {len(chunks) for chunks in inputs.values()}
    if len(calls) > 1:
        raise AdoptionError(f"{files[0]}: its streams have {' and '.join(map(str, sorted(calls)))} calls")
    conditions = {c.name: _condition(c, chain, given.get(c.name), files[0]) for c in part.conditions}
    got, _ = run(model, Signal(inputs, conditions))
    names = {result.source: result for result in chain.results} | {result.name: result for result in chain.results}
    if strange := sorted(set(wanted) - set(names)):
        raise AdoptionError(f"{files[1]} has {listed(strange)}; the results are {listed(sorted(names))}")
    if not wanted:
        raise AdoptionError(f"{files[1]} is empty: save the model's outputs, by their names")
    half = any(state.dtype == "float16" for state in model.manifest.states)
    limit, worst = HALF_TOLERANCE if half else CHUNK_TOLERANCE, 0.0
    for name, array in wanted.items():
        result = names[name]
        worst = max(worst, _held(name, got[result.name], array, result, files[1], limit))
    (count,) = calls
    return f"{count} calls of your own host: {listed(sorted(wanted))} within {worst:.1e} of what it got"


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise AdoptionError(f"can't read {path}: {error}; numpy.savez({path.name!r}, NAME=array) makes one") from error


def _chunks(array: Array, stream: InputStream, spec: StreamInput, chain: GraphChain, path: Path) -> Array:
    """Chunks [calls, 1, *chunk_shape], from the tensors of consecutive calls or from one long signal."""
    row = spec.chunk_shape[1:]
    if chain.scale is not None:
        array = _pcm(array, chain.scale, path)
    raw = stream.layout.raw_at(1) if chain.host is None else ()
    if raw and array.shape[1:] == raw:
        rows = np.concatenate([stream.layout.outward(call) for call in array])[:, -stream.chunk :]
        array = rows.reshape(-1, *row)
    elif raw and array.ndim == len(raw) and stream.time is not None and stream.layout.axis() != stream.time:
        array = np.moveaxis(array, stream.time, 0).reshape(-1, *row)
    elif array.ndim == len(row) + 2 and array.shape[0] == 1:
        array = array[0]
    if array.shape[1:] != row or len(array) < 2 * stream.chunk:
        raise AdoptionError(
            f"{path}: {stream.name} is {list(array.shape)}: either calls [n, {', '.join(map(str, raw))}] or rows "
            f"[n, {', '.join(map(str, row))}] of at least two calls are needed"
        )
    count = len(array) // stream.chunk
    return array[: count * stream.chunk].reshape(count, 1, *spec.chunk_shape).astype(spec.dtype)


def _pcm(array: Array, scale: float, path: Path) -> Array:
    """16-bit samples; floats are the model's inputs, which are samples times ``scale``."""
    if array.dtype.kind in "iu":
        return array
    samples = array.astype(np.float64) / scale
    whole = np.round(samples)
    if np.abs(samples - whole).max(initial=0) > 1e-2 or np.abs(whole).max(initial=0) > 32768:
        raise AdoptionError(
            f"{path}: its samples are not 16-bit sound times {scale:g}: save a 16-bit recording, or its scaled "
            "samples; for another factor say [input] scale"
        )
    return np.clip(whole, -32768, 32767).astype(np.int16)


def _condition(memory: StatePlan, chain: GraphChain, array: Array | None, path: Path) -> Array:
    """The condition's canonical value, zeros if the recording has none."""
    layout = chain.parts[0].memories[memory.name]
    if array is None:
        return np.zeros((1, *layout.shape), memory.dtype)
    if array.size != int(np.prod(memory.raw, dtype=np.int64)):
        raise AdoptionError(f"{path}: {memory.name} is {list(array.shape)}, not {list(memory.raw)}")
    return layout.outward(array.reshape(memory.raw).astype(memory.dtype))


def _held(name: str, got: Array, want: Array, result: ChainOutput, path: Path, tolerance: float) -> float:
    """The deviation of ``got`` [calls, 1, steps, ...] from the host's ``want``. Raises :class:`AdoptionError` if it is
    above ``tolerance``, with the first such call."""
    calls, shape = len(got), got.shape[2:]
    raw = result.layout.raw_at(1)
    if result.kind == "plain" and want.shape[1:] == raw:
        want = np.stack([result.layout.outward(call) for call in want])[:, 0]
    elif want.shape[1:] != shape:
        rows = want[0] if want.ndim == len(shape) + 1 and want.shape[0] == 1 else want
        if rows.shape[1:] != shape[1:]:
            raise AdoptionError(f"{path}: {name} is {list(want.shape)}, the adopted file gives {[calls, *shape]}")
        want = rows[: len(rows) // shape[0] * shape[0]].reshape(-1, *shape)
    count = min(calls, len(want))
    if count < 2:
        raise AdoptionError(f"{path}: {name} has {count} calls' worth: two are needed at least")
    largest = float(np.abs(want[:count].astype(np.float64)).max())
    off = [
        float(np.abs(got[n, 0].astype(np.float64) - want[n].astype(np.float64)).max()) / max(largest, 1e-12)
        for n in range(count)
    ]
    reached = max(deviation(got[:count, 0], want[:count].astype(got.dtype)), 0.0)
    if reached <= tolerance:
        return reached
    bad = next((n for n, by in enumerate(off) if not by <= tolerance), int(np.argmax(off)))
    hint = (
        "the first call is right, so a state is wrong: its pair [state], its axis [batch], or the overlap"
        if bad
        else "the first call is wrong, so look at the axes [input] time, [input] scale, [host], or at the initial "
        "values of states, [start]"
    )
    raise AdoptionError(
        f"{name} differs by {reached:.2g} from your own host's, {tolerance:.0e} is allowed, from call {bad + 1} on: "
        f"{hint}"
    )
