"""What the judge tries on a model, and how it compares: test signals, poisonous neighbours, runs chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Input
from streamer.engine.model import Model

__all__ = ["Array", "Arrays", "deviation", "flat", "poisons", "probe", "rows", "run", "worst"]

Array = NDArray[Any]
Arrays = dict[str, Array]


def probe(spec: Input, chunks: int, batch: int, rng: np.random.Generator) -> Array:
    """[chunks, batch, *chunk_shape]: for integers a gliding tone with noise and pauses, for floats a drifting walk;
    of several channels the walk is the first one, the others have a fixed level. Settings stay for some steps."""
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
    """Each channel at 0 half of the time, else anywhere within its limits; it changes every eighth step."""
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
    """Over all tensors: (worst deviation, whether everything is equal bit for bit, name of the worst)."""
    each = {name: deviation(got[name], want[name]) for name in want}
    name = max(each, key=lambda key: each[key])
    return each[name], all(got[key].tobytes() == want[key].tobytes() for key in want), name


def run(model: Model, chunks: Array, state: Arrays | None = None) -> tuple[Arrays, Arrays]:
    """``chunks`` [n, batch, ...] one after another: outputs [n, batch, ...] by name, and the state after them."""
    manifest = model.manifest
    state = model.zero_state(chunks.shape[1]) if state is None else state
    outputs: dict[str, list[Array]] = {output.name: [] for output in manifest.outputs}
    for chunk in chunks:
        got = model.run({manifest.input.name: chunk, **state})
        state = {pair.in_: np.array(got[pair.out]) for pair in manifest.states}
        for name, column in outputs.items():
            column.append(np.array(got[name]))
    return {name: np.stack(column) for name, column in outputs.items()}, state


def rows(arrays: Mapping[str, Array], rows: Any, axis: int = 0) -> Arrays:
    return {name: np.ascontiguousarray(np.take(array, rows, axis=axis)) for name, array in arrays.items()}


def flat(outputs: Arrays, state: Arrays) -> Arrays:
    return {**outputs, **{f"state {name}": array for name, array in state.items()}}


def poisons(model: Model, sound: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array, Arrays]]:
    """Neighbours [n, ...] with their state [1, ...]: what the worst client or a broken stream puts into a batch."""
    dtype = np.dtype(model.manifest.input.dtype)
    zero = model.zero_state(1)
    if dtype.kind == "f":
        low, high, scaled = dtype.type(-3e38), dtype.type(3e38), (sound * 100).astype(dtype)
        broken = np.full_like(sound, np.nan)
    else:
        info = np.iinfo(dtype) if dtype.kind in "iu" else None
        low, high = (dtype.type(info.min), dtype.type(info.max)) if info else (dtype.type(0), dtype.type(1))
        scaled = np.clip(sound.astype(np.int64) * 100, low, high).astype(dtype)
        broken = np.full_like(sound, high)
    extreme = np.where(rng.random(sound.shape) < 0.5, low, high).astype(dtype)

    def filled(value: float) -> Arrays:
        with np.errstate(over="ignore"):  # what is too large for float16 is infinite there
            return {key: np.full_like(a, value if a.dtype.kind == "f" else 1) for key, a in zero.items()}

    yield "zero rows (padding)", np.zeros_like(sound), zero
    yield "NaN", broken, filled(np.nan)
    yield "infinity", broken, filled(np.inf)
    yield "extreme values", extreme, zero
    yield "100 times louder", scaled, filled(1e6)
