"""Where the batch is in every tensor of a graph, found and proved by running two streams together and apart.

A graph whose batch is free is taken as it is. One whose batch is fixed at 1 is freed (:mod:`export.adopt.free`) with
the likeliest axes of its states, then with others; what then runs two rows as it runs each of them is right. Where
none does, the batch stays 1.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.free import MARK, ClashError, declare, free
from export.adopt.graph import constants, raw
from export.adopt.layout import Layout
from export.adopt.plan import Memory, Part
from export.adopt.read import session
from export.adopt.report import AdoptionError, Report
from streamer.contract.probe import deviation

__all__ = ["Settled", "back", "settle"]

Arrays = dict[str, NDArray[Any]]
Axes = Mapping[str, int | None]

#: Calls that two streams are run for, each with its states of the call before.
CALLS = 3
#: Between rows run together and apart, relative; whole numbers must be the same.
TOLERANCE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
#: Choices of axes that are tried, of at most so many that are thought of.
TRIES, CHOICES = 64, 4096


@dataclass(frozen=True)
class Settled:
    """The graph of a part, only its stream and its states left as inputs. ``free``: it takes any batch.

    ``results``: raw sizes at batch 1 of every result, and the axis of its batch.
    """

    part: Part
    model: ir.Model
    free: bool
    memories: dict[str, Layout]
    results: dict[str, tuple[tuple[int, ...], int | None]]
    changed: int = 0

    def layout(self, result: str) -> Layout:
        """How a result lies, its axes behind the batch in their order."""
        return Layout.moved(*self.results[result])


def settle(part: Part, report: Report, *, fixed: bool = False) -> Settled:
    """``fixed``: the batch stays 1. Raises :class:`AdoptionError` for a state that comes back otherwise."""
    streams = [_alone(part, seed) for seed in range(2)]
    sizes = {name: array.shape for name, array in streams[0][0].items()}
    if not fixed and part.stream.layout.batched:
        for change, axes in itertools.chain(*([(c, a) for c in (False, True)] for a in _choices(part.memories))):
            settled = _try(part, axes, streams, sizes, change)
            if settled is not None:
                _tell(settled, report)
                return settled
    memories = {m.name: Layout.moved(m.raw, _unit(m)) for m in part.memories}
    shapes = {part.stream.name: part.stream.layout.raw_at(1), **{m.name: m.raw for m in part.memories}}
    axis = part.stream.layout.axis()
    results = {
        n: (sizes[n], axis if axis is not None and sizes[n][axis : axis + 1] == (1,) else None)
        for n in part.roles.results
    }
    settled = Settled(part, raw(part, shapes), False, memories, results)
    _tell(settled, report)
    return settled


def _tell(settled: Settled, report: Report) -> None:
    for memory in settled.part.memories:
        axis = settled.memories[memory.name].axis()
        behind = "" if memory.out is None else f" -> {memory.out}"
        where = "no batch axis" if axis is None else f"batch on axis {axis}"
        if axis is not None and memory.raw[axis] > 1:
            where = f"batch folded into axis {axis}"
        counts = f", counts {memory.step} a call" if memory.out is None else ""
        report.found(f"state {memory.name}{behind}: {memory.dtype} {list(memory.raw)}, {where}{counts}")
    if settled.changed:
        report.did(f"freed a batch fixed at 1, in {settled.changed} operators: two streams together are as each alone")
    elif not settled.free:
        report.found("a batch that can't be freed: no two streams together come out as each alone, so max_batch = 1")


def _unit(memory: Memory) -> int | None:
    return next((axis for axis in memory.axes if axis is not None and memory.raw[axis] == 1), None)


# -- what is tried -----------------------------------------------------------------------------------------------------


def _choices(memories: Sequence[Memory]) -> Iterator[dict[str, int | None]]:
    """The likeliest first. States of one kind (a name but for its numbers, and a shape) have the same axis."""
    kinds: dict[tuple[Any, ...], list[Memory]] = {}
    for memory in memories:
        kinds.setdefault((re.sub(r"\d+", "", memory.name), memory.raw, memory.axes), []).append(memory)
    groups = list(kinds.values())
    ranks = itertools.islice(itertools.product(*(range(len(group[0].axes)) for group in groups)), CHOICES)
    for chosen in sorted(ranks, key=sum)[:TRIES]:
        yield {m.name: m.axes[rank] for rank, group in zip(chosen, groups, strict=True) for m in group}


def _try(
    part: Part, axes: Axes, streams: Sequence[list[Arrays]], sizes: Mapping[str, tuple[int, ...]], change: bool
) -> Settled | None:
    """With the states' batch on these axes; ``change``: free what is fixed. ``None``: two rows are not two streams."""
    memories = {m.name: Layout.moved(m.raw, axes[m.name]) for m in part.memories}
    if not all(layout.batched for layout in memories.values()):
        return None
    layouts = {part.stream.name: part.stream.layout, **memories}
    shapes = {name: _symbolic(layout) for name, layout in layouts.items()}
    model, changed = raw(part, shapes), 0
    if change:
        axis = part.stream.layout.axis()
        assert axis is not None
        marked = {name: layout.raw_at(MARK) for name, layout in layouts.items()}
        try:
            changed = free(model, marked, part.stream.name, axis)
        except ClashError:
            return None
        if not changed:
            return None
    declare(model, shapes)
    try:
        runner = session(ir.to_proto(model).SerializeToString())
        results = _together(part, runner, layouts, streams, sizes)
    except Exception:  # a graph that can't do two rows says so in any way
        return None
    return None if results is None else Settled(part, model, True, memories, results, changed)


def _symbolic(layout: Layout) -> tuple[int | str, ...]:
    at, sizes = layout.axis(), layout.raw_at(1)
    return tuple(("batch" if size == 1 else "batches") if axis == at else size for axis, size in enumerate(sizes))


# -- two streams apart, and together -----------------------------------------------------------------------------------


def _alone(part: Part, seed: int) -> list[Arrays]:
    """A stream through the file as it is: for each call what it gave, and as ``in NAME`` what it was given."""
    runner, rng = part.foreign.session(), np.random.default_rng(seed)
    names = [output.name for output in runner.get_outputs()]
    shape = part.stream.layout.raw_at(1)
    state = {m.name: np.full(m.raw, m.start, m.dtype) for m in part.memories}
    calls: list[Arrays] = []
    for _ in range(CALLS):
        feeds = {part.stream.name: _noise(shape, part.stream.dtype, rng), **state, **constants(part)}
        try:
            got = dict(zip(names, runner.run(names, feeds), strict=True))
        except Exception as error:
            raise AdoptionError(
                f"{part.foreign.path} does not run on chunks of {list(shape)} ({' '.join(str(error).split())[:300]}): "
                "check [input], [dims] and [constants]"
            ) from error
        state = {m.name: back(m, state[m.name], got) for m in part.memories}
        calls.append({**got, **{f"in {name}": array for name, array in feeds.items()}})
    return calls


def back(memory: Memory, old: NDArray[Any], got: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The state behind a call. Raises :class:`AdoptionError` if it is another kind of thing than before."""
    if memory.out is None:
        return old + np.asarray(memory.step, old.dtype)
    new = got[memory.out]
    if new.shape != old.shape or new.dtype != old.dtype:
        raise AdoptionError(
            f"the state {memory.name} goes in as {old.dtype} {list(old.shape)} and comes back from {memory.out} as "
            f"{new.dtype} {list(new.shape)}: a state keeps its size. If it grows, export the model with a window of "
            f'fixed length; if it comes back from another output, say [state] {memory.name} = "..."'
        )
    return new


def _noise(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    kind, noise = np.dtype(dtype), rng.standard_normal(shape)
    if kind.kind == "b":
        return noise > 0
    return (noise * (3000 if kind.itemsize > 1 else 30) if kind.kind in "iu" else noise).astype(kind)


def _together(
    part: Part,
    runner: Any,
    layouts: Mapping[str, Layout],
    streams: Sequence[list[Arrays]],
    sizes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[tuple[int, ...], int | None]] | None:
    """The same two streams as two rows; where the batch is in every result, or ``None`` if they come out otherwise."""
    lies = {m.out: layouts[m.name] for m in part.memories if m.out is not None}
    names = [*lies, *part.roles.results]
    for calls in zip(*streams, strict=True):
        feeds = {name: _stacked(layout, [call[f"in {name}"] for call in calls]) for name, layout in layouts.items()}
        for name, array in zip(names, runner.run(names, feeds), strict=True):
            if name not in lies:
                one = sizes[name]
                if len(one) != array.ndim:
                    return None
                axes = [axis for axis in range(len(one)) if array.shape[axis] == 2 * one[axis]]
                if len(axes) != 1:
                    return None
                lies[name] = Layout.moved(one, axes[0])
            layout = lies[name]
            if array.shape != layout.raw_at(2):
                return None
            want = np.concatenate([layout.outward(call[name]) for call in calls])
            if deviation(layout.outward(array), want) > TOLERANCE.get(str(want.dtype), 0):
                return None
    return {name: (sizes[name], lies[name].axis()) for name in part.roles.results}


def _stacked(layout: Layout, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return layout.inward(np.concatenate([layout.outward(array) for array in arrays]))
