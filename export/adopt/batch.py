"""Finds the batch axis of every tensor of a graph, and proves it by running two streams together and separately.

A graph with a dynamic batch axis stays unchanged. A batch fixed at 1 is made dynamic (:mod:`export.adopt.free`) with
the likeliest batch axes of the states first, then with others. A choice is right if two streams in one batch give what
each gives alone. If no choice is right, the batch stays 1.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.free import MARK, ClashError, declare, free, inferred
from export.adopt.graph import constants, folded, raw
from export.adopt.layout import AxisLayout
from export.adopt.plan import GraphPart, StatePlan
from export.adopt.read import session
from export.adopt.report import AdoptionError, Report
from export.adopt.watch import step_axes
from streamer.contract.probe import deviation

__all__ = ["Settled", "back", "first_call", "settle"]

Arrays = dict[str, NDArray[Any]]
Axes = Mapping[str, int | None]
#: Result -> its raw sizes at batch 1, and its batch axis.
Results = dict[str, tuple[tuple[int, ...], int | None]]

#: Number of consecutive calls for which two streams are run.
CALLS = 3
#: Relative tolerance between rows run together and separately; integers must be equal.
TOLERANCE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
#: Maximum number of choices of axes that are tried, and that are generated.
TRIES, CHOICES = 64, 4096


@dataclass(frozen=True)
class Settled:
    """The graph of a part whose inputs are its streams, states and conditions alone. ``free``: it takes any batch.

    ``memories``: layouts of states and conditions. ``results``: raw sizes at batch 1 of every result, and its batch
    axis. ``changed``: number of operators that were changed for the batch. ``times``: the time axes of results where
    that is not the first axis without the batch, ``"none"``: a call gives one result.
    """

    part: GraphPart
    model: ir.Model
    free: bool
    memories: dict[str, AxisLayout]
    results: Results
    changed: int = 0
    times: Mapping[str, int | str] = field(default_factory=dict)

    def layout(self, result: str) -> AxisLayout:
        """The layout of a result: the batch first, then the other axes in their order."""
        return AxisLayout.moved(*self.results[result])


def settle(part: GraphPart, report: Report, *, fixed: bool = False) -> Settled:
    """Find the batch axes of ``part``. ``fixed``: the batch stays 1. Raises :class:`AdoptionError` if the original does
    not run, or if a state comes back with another type or shape."""
    streams = [_alone(part, seed) for seed in range(2)]
    sizes = {name: array.shape for name, array in streams[0][0].items()}
    reason = "its stream has no batch axis"
    if not fixed and part.stream.layout.batched:
        trials = _Trials(part, streams, sizes)
        report.step("looking for the batch")
        number = 0
        for axes in _choices(part.memories):
            if trials.ruled_out(axes):
                continue
            number += 1
            report.step(f"looking for the batch of every state, try {number} of at most {TRIES}")
            settled = trials(axes)
            if settled is not None:
                return _reported(settled, streams, report)
            if number == TRIES:
                break
        reason = trials.reason
    memories = {m.name: AxisLayout.moved(m.raw, _unit(m)) for m in part.memories}
    shapes = {**{one.name: one.layout.raw_at(1) for one in part.streams}, **{m.name: m.raw for m in part.memories}}
    axis = part.stream.layout.axis()
    results = {
        n: (sizes[n], axis if axis is not None and sizes[n][axis : axis + 1] == (1,) else None)
        for n in part.roles.results
    }
    return _reported(Settled(part, raw(part, shapes), False, memories, results), streams, report, reason)


def first_call(part: GraphPart) -> Arrays:
    """The inputs of a stream's first call, by name, with random rows."""
    (call, *_) = _alone(part, 0)
    return {name.removeprefix("in "): array for name, array in call.items() if name.startswith("in ")}


def _reported(settled: Settled, streams: Sequence[list[Arrays]], report: Report, reason: str = "") -> Settled:
    feeds = {name.removeprefix("in "): array for name, array in streams[0][1].items() if name.startswith("in ")}
    _report(settled, report, reason)
    return replace(settled, times=step_axes(settled.part, feeds, settled.results))


#: How a pair was found, where it is not by what it is called.
_BY = {
    "": "",
    "settings": "",
    "name": "",
    "graph": " (by the graph)",
    "shape": " (by its shape)",
    "arithmetic": " (by the arithmetic and the order; for another say [state])",
}


def _report(settled: Settled, report: Report, reason: str) -> None:
    for memory in settled.part.memories:
        axis = settled.memories[memory.name].axis()
        kind = "condition" if memory.given else "state"
        output = "" if memory.out is None else f" -> {memory.out}{_BY[settled.part.roles.how.get(memory.name, '')]}"
        where = "no batch axis" if axis is None else f"batch on axis {axis}"
        if axis is not None and memory.raw[axis] > 1:
            where = f"batch folded into axis {axis}"
        counts = f", counts {memory.step} a call" if memory.out is None and not memory.given else ""
        report.found(f"{kind} {memory.name}{output}: {memory.dtype} {list(memory.raw)}, {where}{counts}")
    if settled.changed:
        report.did(
            f"freed a batch fixed at 1, in {settled.changed} operators: two streams together give what each gives alone"
        )
    elif not settled.free:
        report.found(f"a batch that can't be freed, so max_batch = 1: {reason}")


def _unit(memory: StatePlan) -> int | None:
    return next((axis for axis in memory.axes if axis is not None and memory.raw[axis] == 1), None)


# -- what is tried -----------------------------------------------------------------------------------------------------


def _choices(memories: Sequence[StatePlan]) -> Iterator[dict[str, int | None]]:
    """Choices of batch axes, the likeliest first. States whose names differ only in numbers and that have one shape
    have the same axis."""
    kinds: dict[tuple[Any, ...], list[StatePlan]] = {}
    for memory in memories:
        kinds.setdefault((re.sub(r"\d+", "", memory.name), memory.raw, memory.axes), []).append(memory)
    groups = list(kinds.values())
    ranks = itertools.islice(itertools.product(*(range(len(group[0].axes)) for group in groups)), CHOICES)
    for chosen in sorted(ranks, key=sum):
        yield {m.name: m.axes[rank] for rank, group in zip(chosen, groups, strict=True) for m in group}


class _Trials:
    """Tries choices of axes. ``reason``: why the choice with the smallest deviation is wrong, else the first choice.

    A choice that failed at an operator rules out all choices with the same axes of the states that reach this operator.
    """

    def __init__(self, part: GraphPart, streams: Sequence[list[Arrays]], sizes: Mapping[str, tuple[int, ...]]) -> None:
        self.part, self.streams, self.sizes = part, streams, sizes
        self.reason = ""
        self._nearest = float("inf")
        self._wrong: list[Axes] = []
        axis = part.stream.layout.axis()
        self._base: onnx.ModelProto | None = None
        if axis is not None and isinstance(part.port(part.stream.name).dims[axis], int):
            # a batch that is declared as 1 can be folded as 1, once for all choices
            one = {**{s.name: s.layout.raw_at(1) for s in part.streams}, **{m.name: m.raw for m in part.memories}}
            self._base = ir.to_proto(raw(part, one))

    def ruled_out(self, axes: Axes) -> bool:
        """Whether an earlier failure shows that this choice fails, too."""
        return any(all(axes[name] == axis for name, axis in wrong.items()) for wrong in self._wrong)

    def __call__(self, axes: Axes) -> Settled | None:
        """Try the states' batch on these axes; ``None``: two rows do not behave as two streams."""
        part = self.part
        memories = {m.name: AxisLayout.moved(m.raw, axes[m.name]) for m in part.memories}
        bare = sorted(name for name, layout in memories.items() if not layout.batched)
        if bare:
            self._note(f"{bare[0]} has no axis for it", axes, {bare[0]})
            return None
        layouts = {**{one.name: one.layout for one in part.streams}, **memories}
        shapes = {name: _symbolic(layout) for name, layout in layouts.items()}
        model = raw(part, shapes) if self._base is None else ir.from_proto(self._base)
        declare(model, shapes)
        results, changed = self._run(model, layouts, None), 0
        if results is None:
            axis = part.stream.layout.axis()
            assert axis is not None
            marked = {name: layout.raw_at(MARK) for name, layout in layouts.items()}
            try:
                changed = free(model, marked, part.stream.name, axis)
            except ClashError as error:
                self._note(str(error).replace(str(MARK), "rows"), axes, _reaching(error.node))
                return None
            declare(model, shapes)
            results = self._run(model, layouts, axes)
        if results is None:
            return None
        spare = ir.to_proto(model)
        if not folded(model, shapes):
            model = ir.from_proto(spare)
            inferred(model, shapes)
        return Settled(part, model, True, memories, results, changed)

    def _run(self, model: ir.Model, layouts: Mapping[str, AxisLayout], axes: Axes | None) -> Results | None:
        """Run two rows; ``None`` if they do not behave as two streams. ``axes``: the choice, whose failure is noted;
        ``None``: the graph will be changed and run again."""
        try:
            runner = session(ir.to_proto(model).SerializeToString())
            return _together(self.part, runner, layouts, self.streams, self.sizes)
        except _DifferError as error:
            ends = [value.producer() for value in model.graph.outputs if value.name == error.name]
            self._note(str(error), axes, _reaching(ends[0]) if ends else None, error.by)
        except Exception as error:  # a graph that can't run two rows raises many types
            message, name = _operator(error)
            here = [node for node in model.graph if node.name == name]
            self._note(message, axes, _reaching(here[0]) if name and len(here) == 1 else None)
        return None

    def _note(self, reason: str, axes: Axes | None, inputs: set[str] | None, by: float = float("inf")) -> None:
        """Note a failure. ``inputs``: those that reach the failed operator, ``None``: unknown."""
        if axes is None:
            return
        self._wrong.append(axes if inputs is None else {name: axis for name, axis in axes.items() if name in inputs})
        if not self.reason or by < self._nearest:
            self.reason, self._nearest = reason, by


def _reaching(node: ir.Node | None) -> set[str] | None:
    """Names of the inputs and initialisers that a node depends on; ``None``: unknown."""
    if node is None:
        return None
    stack, seen, names = [node], {id(node)}, set()
    while stack:
        one = stack.pop()
        if any(isinstance(a, ir.Attr) and a.type == ir.AttributeType.GRAPH for a in one.attributes.values()):
            return None
        for value in one.inputs:
            before = None if value is None else value.producer()
            if before is not None and id(before) not in seen:
                seen.add(id(before))
                stack.append(before)
            elif value is not None and before is None:
                names.add(str(value.name))
    return names


def _operator(error: Exception) -> tuple[str, str]:
    """The runtime's message about the operator that can't run two rows, and the operator's name."""
    text = " ".join(str(error).split())
    named = re.search(r"running (\w+) node\. Name:'([^']*)'", text)
    reason = text.split("Status Message:")[-1].strip()
    reason = re.sub(r"^\S*/\S+:\d+ .*?\) ", "", reason)[:160]
    if not named:
        return reason, ""
    return f"{named[1]} {named[2]} is fixed to a batch of 1 ({reason})", named[2]


class _DifferError(ValueError):
    """Two rows give other results than two streams. ``name``: the output; ``by``: its difference relative to the
    largest value."""

    def __init__(self, name: str, by: float) -> None:
        super().__init__(
            f"rows influence each other: {name} of two streams together is {by:.2g} from what each gives alone"
        )
        self.name, self.by = name, by


def _symbolic(layout: AxisLayout) -> tuple[int | str, ...]:
    """The raw sizes with a symbol for the batch."""
    at, sizes = layout.axis(), layout.raw_at(1)
    return tuple(("batch" if size == 1 else "batches") if axis == at else size for axis, size in enumerate(sizes))


# -- two streams apart, and together -----------------------------------------------------------------------------------


def _alone(part: GraphPart, seed: int) -> list[Arrays]:
    """Run one stream of random rows through the original file. Returns the tensors of each call: outputs by name,
    inputs as ``in NAME``."""
    runner, rng = part.foreign.session(), np.random.default_rng(seed)
    names = [output.name for output in runner.get_outputs()]
    state = {m.name: _random(m.raw, m.dtype, rng) if m.given else m.first() for m in part.memories}
    calls: list[Arrays] = []
    for _ in range(CALLS):
        fresh = {one.name: _random(one.layout.raw_at(1), one.dtype, rng, one.limit) for one in part.streams}
        feeds = {**fresh, **state, **constants(part)}
        try:
            got = dict(zip(names, runner.run(names, feeds), strict=True))
        except Exception as error:
            raise AdoptionError(
                f"{part.foreign.path} does not run on chunks of {list(part.stream.layout.raw_at(1))} "
                f"({' '.join(str(error).split())[:300]}): check [input], [dims] and [constants]"
            ) from error
        state = {m.name: back(m, state[m.name], got) for m in part.memories}
        calls.append({**got, **{f"in {name}": array for name, array in feeds.items()}})
    return calls


def back(memory: StatePlan, old: NDArray[Any], got: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The state after a call. Raises :class:`AdoptionError` if its type or shape differs from before."""
    if memory.out is None:
        return old if memory.given else np.asarray(old + np.asarray(memory.step, old.dtype))
    new = got[memory.out]
    if new.shape != old.shape or new.dtype != old.dtype:
        raise AdoptionError(
            f"the state {memory.name} goes in as {old.dtype} {list(old.shape)} and comes back from {memory.out} as "
            f"{new.dtype} {list(new.shape)}: a state keeps its size. If it grows, export the model with a window of "
            f'fixed length; if it comes back from another output, say [state] {memory.name} = "..."'
        )
    return new


def _random(shape: tuple[int, ...], dtype: str, rng: np.random.Generator, limit: int | None = None) -> NDArray[Any]:
    if limit is not None:
        return rng.integers(0, limit, shape, endpoint=True).astype(dtype)
    kind, noise = np.dtype(dtype), np.asarray(rng.standard_normal(shape))
    if kind.kind == "b":
        return np.asarray(noise > 0)
    return np.asarray(noise * (3000 if kind.itemsize > 1 else 30) if kind.kind in "iu" else noise, kind)


def _together(
    part: GraphPart,
    runner: Any,
    layouts: Mapping[str, AxisLayout],
    streams: Sequence[list[Arrays]],
    sizes: Mapping[str, tuple[int, ...]],
) -> Results:
    """Run the same two streams as two rows, and find the batch axis of every result. Raises :class:`_DifferError` if
    the rows differ from the streams, and ``ValueError`` for an output without a batch."""
    layout_of = {m.out: layouts[m.name] for m in part.memories if m.out is not None}
    names = [*layout_of, *part.roles.results]
    for calls in zip(*streams, strict=True):
        feeds = {name: _stacked(layout, [call[f"in {name}"] for call in calls]) for name, layout in layouts.items()}
        for name, array in zip(names, runner.run(names, feeds), strict=True):
            if name not in layout_of:
                one = sizes[name]
                axes = [axis for axis in range(len(one)) if array.shape[axis : axis + 1] == (2 * one[axis],)]
                if len(one) != array.ndim or len(axes) != 1:
                    raise ValueError(f"{name} is {list(array.shape)} for two streams, {list(one)} for one")
                layout_of[name] = AxisLayout.moved(one, axes[0])
            layout = layout_of[name]
            if array.shape != layout.raw_at(2):
                raise ValueError(f"{name} is {list(array.shape)} for two streams, not {list(layout.raw_at(2))}")
            want = np.concatenate([layout.outward(call[name]) for call in calls])
            by = deviation(layout.outward(array), want)
            if by > TOLERANCE.get(str(want.dtype), 0):
                raise _DifferError(name, by)
    return {name: (sizes[name], layout_of[name].axis()) for name in part.roles.results}


def _stacked(layout: AxisLayout, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return layout.inward(np.concatenate([layout.outward(array) for array in arrays]))
