"""The judge's tools: test signals, poisoned batch neighbours, chunked runs, and comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Condition, Manifest, StreamInput

__all__ = [
    "Array",
    "Arrays",
    "Runnable",
    "Signal",
    "beside",
    "deviation",
    "flat",
    "poisons",
    "probe",
    "random_signal",
    "rows",
    "run",
    "worst",
]

Array = NDArray[Any]
Arrays = dict[str, Array]


class Runnable(Protocol):
    """A loaded model file: :class:`streamer.engine.model.Model`."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def path(self) -> Path: ...

    def run(self, feeds: Arrays) -> Arrays: ...

    def zero_state(self, batch: int) -> Arrays: ...


@dataclass(frozen=True)
class Signal:
    """Test input for a batch of streams. ``inputs``: [chunks, batch, ...] of every stream input; ``conditions``:
    [batch, ...] of each."""

    inputs: Arrays
    conditions: Arrays

    def __len__(self) -> int:
        """Chunks."""
        return len(next(iter(self.inputs.values())))

    @property
    def batch(self) -> int:
        return int(next(iter(self.inputs.values())).shape[1])

    def part(self, chunks: slice) -> Signal:
        return Signal({name: array[chunks] for name, array in self.inputs.items()}, self.conditions)

    def rows(self, which: Any) -> Signal:
        return Signal(rows(self.inputs, which, axis=1), rows(self.conditions, which))


def beside(signals: Sequence[Signal]) -> Signal:
    """The streams of both signals in one batch."""
    first = signals[0]
    return Signal(
        {name: np.concatenate([one.inputs[name] for one in signals], axis=1) for name in first.inputs},
        {name: np.concatenate([one.conditions[name] for one in signals]) for name in first.conditions},
    )


def random_signal(manifest: Manifest, chunks: int, batch: int, rng: np.random.Generator) -> Signal:
    """A :func:`probe` for every input; random conditions, none of them zero."""
    inputs = {spec.name: probe(spec, chunks, batch, rng) for spec in manifest.inputs}
    return Signal(inputs, {given.name: _condition(given, batch, rng) for given in manifest.conditions})


def _condition(spec: Condition, batch: int, rng: np.random.Generator) -> Array:
    shape, dtype = (batch, *spec.shape), np.dtype(spec.dtype)
    if dtype.kind == "f":
        values: Array = rng.uniform(0.2, 1.5, shape) * rng.choice([-1, 1], shape)
    else:
        low, high = spec.limits or (0, 1)
        values = rng.integers(low, high, shape, endpoint=True)
        values[values == 0] = high or low
    return values.astype(dtype)


def probe(spec: StreamInput, chunks: int, batch: int, rng: np.random.Generator) -> Array:
    """A test input [chunks, batch, *chunk_shape]: for integers a gliding tone with noise and pauses, for floats a
    random walk; of several channels only the first is the walk, the others have a fixed level. Settings change every
    few steps."""
    shape = (batch, chunks * spec.chunk_shape[0], *spec.chunk_shape[1:])
    noise = rng.standard_normal(shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        signal: Array = noise > 0
    elif spec.limits is not None:
        signal = _settings(spec.limits, shape, rng)
    elif dtype.kind in "iu":
        along = [1, -1] + [1] * (len(shape) - 2)
        time = np.arange(shape[1]).reshape(along)
        pitch = rng.uniform(0.02, 0.2, (batch, *[1] * (len(shape) - 1)))
        loud = 0.5 + 0.5 * np.sin(pitch * time / 40)
        sound = (np.sin(pitch * time + 8 * np.sin(pitch * time / 300)) + 0.1 * noise) * np.maximum(loud - 0.2, 0.01)
        info = np.iinfo(dtype)
        middle = info.max // 2 if dtype.kind == "u" else 0
        signal = np.clip(np.round(sound * 0.1 * info.max + middle), info.min, info.max)
    else:
        signal = noise + 0.1 * np.cumsum(rng.standard_normal(shape), axis=1)
        if len(shape) > 2:
            signal[..., 1:] = 0.7 + 0.5 * noise[..., 1:]  # masks and clocks: now and then off, in the right range
    split = signal.astype(dtype).reshape(batch, chunks, *spec.chunk_shape)
    return np.ascontiguousarray(np.moveaxis(split, 1, 0))


def _settings(limits: Sequence[tuple[int, int]], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Each channel is 0 half of the time, else anywhere within its limits; it changes every eighth step."""
    if len(shape) == 2:  # [batch, steps]: one channel without an axis of its own
        return _settings(limits, (*shape, 1), rng)[..., 0]
    low, high = np.array(limits).T
    values = rng.integers(low, high, shape, endpoint=True) * rng.integers(0, 2, shape)
    changes = rng.random(shape) < 1 / 8
    changes[:, 0] = True
    steps = np.arange(shape[1])[None, :, None]
    since = np.maximum.accumulate(np.where(changes, steps, 0), axis=1)  # the step of the last change
    return np.take_along_axis(values, since, axis=1)


def deviation(got: Array, want: Array) -> float:
    """Largest difference over the largest value of its step (last axis); infinite when shapes or finiteness differ."""
    if got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return float("inf")
    if got.size == 0 or np.array_equal(got, want, equal_nan=got.dtype.kind == "f"):
        return 0.0
    a, b = (
        np.where(np.isfinite(got), got, 0).astype(np.float64),
        np.where(np.isfinite(want), want, 0).astype(np.float64),
    )
    largest = float(np.max(np.abs(b)))
    # a step that is nearly zero beside the others is measured against the others
    scale = np.maximum(np.max(np.abs(b), axis=-1, keepdims=True), 1e-2 * largest)
    return float(np.max(np.abs(a - b) / np.maximum(scale, 1e-12)))


def worst(got: Mapping[str, Array], want: Mapping[str, Array]) -> tuple[float, bool, str]:
    """Over all tensors: (largest deviation, whether all are bit-identical, name of the tensor with the largest)."""
    each = {name: deviation(got[name], want[name]) for name in want}
    name = max(each, key=lambda key: each[key])
    return each[name], all(got[key].tobytes() == want[key].tobytes() for key in want), name


def run(model: Runnable, signal: Signal | Array, state: Arrays | None = None) -> tuple[Arrays, Arrays]:
    """Run the chunks in order: outputs [chunks, batch, ...] by name, and the final states. An array
    [chunks, batch, ...] is the signal of a model's only input."""
    manifest = model.manifest
    if not isinstance(signal, Signal):
        zeros = {c.name: np.zeros((signal.shape[1], *c.shape), c.dtype) for c in manifest.conditions}
        signal = Signal({manifest.input.name: signal}, zeros)
    state = model.zero_state(signal.batch) if state is None else state
    outputs: dict[str, list[Array]] = {output.name: [] for output in manifest.outputs}
    for number in range(len(signal)):
        chunk = {name: array[number] for name, array in signal.inputs.items()}
        got = model.run({**chunk, **signal.conditions, **state})
        state = {name: np.array(array) for name, array in manifest.carry(got).items()}
        for name, column in outputs.items():
            column.append(np.array(got[name]))
    return {name: np.stack(column) for name, column in outputs.items()}, state


def rows(arrays: Mapping[str, Array], rows: Any, axis: int = 0) -> Arrays:
    return {name: np.ascontiguousarray(np.take(array, rows, axis=axis)) for name, array in arrays.items()}


def flat(outputs: Arrays, state: Arrays) -> Arrays:
    return {**outputs, **{f"state {name}": array for name, array in state.items()}}


def poisons(model: Runnable, signal: Signal, rng: np.random.Generator) -> Iterator[tuple[str, Signal, Arrays]]:
    """Poisoned neighbours of ``signal``'s shape with their states [1, ...]: the worst that a client or a broken stream
    can put into a row. Integer conditions stay within their limits, since no stream gets others."""
    zero, manifest = model.zero_state(signal.batch), model.manifest
    makes: dict[str, Callable[[Array], Array]] = {
        "zero rows (padding)": np.zeros_like,
        "NaN": lambda array: _filled(array, np.nan),
        "infinity": lambda array: _filled(array, np.nan),
        "extreme values": lambda array: np.where(rng.random(array.shape) < 0.5, *_range(array.dtype)).astype(
            array.dtype
        ),
        "100 times louder": _louder,
    }
    memories = {"NaN": np.nan, "infinity": np.inf, "100 times louder": 1e6}
    for name, make in makes.items():
        inputs = {key: make(array) for key, array in signal.inputs.items()}
        given = {
            spec.name: make(array) if array.dtype.kind == "f" else _limit(spec, array, name)
            for spec in manifest.conditions
            for array in [signal.conditions[spec.name]]
        }
        value = memories.get(name)
        state = zero if value is None else {key: _memory(array, value) for key, array in zero.items()}
        yield name, Signal(inputs, given), state


def _range(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        largest = min(3e38, float(np.finfo(dtype).max))
        return dtype.type(-largest), dtype.type(largest)
    if dtype.kind in "iu":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return dtype.type(0), dtype.type(1)


def _extreme(array: Array, rng: np.random.Generator) -> Array:
    low, high = _range(array.dtype)
    found: Array = np.where(rng.random(array.shape) < 0.5, low, high).astype(array.dtype)
    return found


def _filled(array: Array, value: float) -> Array:
    return np.full_like(array, value if array.dtype.kind == "f" else _range(array.dtype)[1])


def _louder(array: Array) -> Array:
    if array.dtype.kind == "f":
        return (array * 100).astype(array.dtype)
    return np.clip(array.astype(np.int64) * 100, *_range(array.dtype)).astype(array.dtype)


def _memory(array: Array, value: float) -> Array:
    with np.errstate(over="ignore"):  # what is too large for float16 is infinite there
        return np.full_like(array, value if array.dtype.kind == "f" else 1)


def _limit(spec: Condition, array: Array, poison: str) -> Array:
    low, high = spec.limits or (0, 1)
    return np.full_like(array, 0 if poison.startswith("zero") else low if poison == "NaN" else high)
