"""Finds which positions of a tensor depend on the end of a call, by two runs that differ in the last row.

Along a time axis only the last positions depend on it, along any other axis all positions do. That distinguishes time
from classes, and a recurrence over time from one over frequency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.flow import GraphFlow, Recurrence
from export.adopt.graph import raw
from export.adopt.plan import GraphPart
from export.adopt.read import session
from export.adopt.report import AdoptionError, Report
from export.adopt.settings import AdoptSettings
from export.adopt.stream import InputStream

__all__ = ["changed_positions", "refuse_forgetful", "step_axes"]

Arrays = dict[str, NDArray[Any]]
Axis = int | str


def changed_positions(old: NDArray[Any], new: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Whether ``new`` differs from ``old`` at each position along ``axis``."""
    rest = tuple(other for other in range(old.ndim) if other != axis)
    changed: NDArray[np.bool_] = np.any(old != new, axis=rest)
    return changed


def _last_row_changed(stream: InputStream, array: NDArray[Any]) -> NDArray[Any]:
    """A copy of a call's tensor (raw) with another last row."""
    rows = np.array(stream.layout.outward(array))
    last = rows[:, -1]
    if stream.limit is not None:
        rows[:, -1] = np.where(last == 0, min(1, stream.limit), 0)
    elif rows.dtype.kind == "b":
        rows[:, -1] = ~last
    else:
        rows[:, -1] = last + (np.abs(last).max() + 1).astype(rows.dtype)
    return stream.layout.inward(rows).reshape(array.shape)


def _both(
    part: GraphPart, data: bytes, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> tuple[Arrays, Arrays]:
    """The outputs ``names`` of a graph for ``feeds``, and for ``feeds`` with another last row."""
    runner = session(data)
    changed = {**feeds, **{one.name: _last_row_changed(one, feeds[one.name]) for one in part.streams}}
    wanted = {value.name for value in runner.get_inputs()}

    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        got = runner.run(list(names), {name: array for name, array in given.items() if name in wanted})
        return dict(zip(names, got, strict=True))

    return run(feeds), run(changed)


# -- results -----------------------------------------------------------------------------------------------------------


def step_axes(
    part: GraphPart, feeds: Mapping[str, NDArray[Any]], results: Mapping[str, tuple[tuple[int, ...], int | None]]
) -> dict[str, Axis]:
    """The time axes of results, where they are not the first axis apart from the batch; ``"none"``: no time axis.
    ``results``: raw sizes at batch 1, and the batch axis. ``feeds``: the inputs of one call."""
    open_ones = {
        name: [axis for axis in range(len(sizes)) if axis != batch] for name, (sizes, batch) in results.items()
    }
    open_ones = {name: axes for name, axes in open_ones.items() if axes and results[name][0][axes[0]] != 1}
    if not open_ones:
        return {}
    chunk, found = part.stream.chunk, {}
    old, new = _both(part, part.foreign.data, list(open_ones), feeds) if chunk > 1 else ({}, {})
    for name, axes in open_ones.items():
        sizes = results[name][0]
        if chunk == 1:
            ones = sorted((axis for axis in axes if sizes[axis] == 1), key=lambda axis: axis != part.stream.time)
            found[name] = ones[0] if ones else "none"
            continue
        along = [axis for axis in axes if sizes[axis] > 1 and chunk % sizes[axis] == 0]
        along = [axis for axis in along if _is_tail(changed_positions(old[name], new[name], axis))]
        equal = sorted((axis for axis in axes if sizes[axis] == chunk), key=lambda axis: axis != part.stream.time)
        first, whole = axes[0], np.dtype(part.port(name).dtype).kind in "iu"
        if first in along:
            continue
        if along or equal:
            found[name] = (along or equal)[0]
        elif chunk % sizes[first] or (len(axes) == 1 and not whole):
            found[name] = "none"
    return {name: axis for name, axis in found.items() if axis != open_ones[name][0]}


def _is_tail(changed: NDArray[np.bool_]) -> bool:
    """Whether only positions from some point on have changed."""
    return bool(changed[-1] and not changed[0] and np.all(np.diff(changed.astype(np.int8)) >= 0))


# -- recurrences that are reset ----------------------------------------------------------------------------------------


def refuse_forgetful(
    part: GraphPart, settings: AdoptSettings, feeds: Mapping[str, NDArray[Any]], report: Report
) -> None:
    """Raises :class:`AdoptionError` that names every recurrence over time which is reset in each call."""
    shapes = {**{s.name: s.layout.raw_at(1) for s in part.streams}, **{m.name: m.raw for m in part.memories}}
    model = raw(part, shapes)
    found = [one for one in GraphFlow(model).forgetful() if one.node.name not in settings.recurrence.restarts]
    if not found:
        return
    overlap = part.stream.overlap if part.stream.kind in ("pcm", "rows") else 0
    if overlap >= part.stream.chunk:
        report.found(f"{found[0].name} is reset in every call, which takes a whole window again")
        return
    over = _over_time(part, model, found, feeds)
    lost = [one for one in found if over[one]]
    if not lost:
        return
    names = sorted({one.node.name or "" for one in lost})
    starts = "; ".join(f"{one.name} has {_start_text(one)} as its {one.what}" for one in lost[:6])
    starts += f"; and {len(lost) - 6} more" if len(lost) > 6 else ""
    raise AdoptionError(
        f"it forgets everything from call to call: {starts}, at the start of every call. The state of such a layer is "
        "neither an input nor an output of the file, so no host can carry it. Export the model with that state as an "
        "input and an output: forward(x, h) that returns y and the new h. If the model's own host does reset it in "
        "every call, say\n\n"
        f"[recurrence]\nrestarts = [{', '.join(repr(name) for name in names)}]"
    )


def _start_text(one: Recurrence) -> str:
    """The initial value of a recurrence, for the message."""
    return "nothing" if one.start is None else "a constant"


def _over_time(
    part: GraphPart, model: ir.Model, found: Sequence[Recurrence], feeds: Mapping[str, NDArray[Any]]
) -> dict[Recurrence, bool]:
    """Whether each recurrence runs along time; ``True`` if that can't be observed."""
    tensors = {one: one.over if one.over is not None else one.node.inputs[0] for one in found}
    here = {id(value) for node in model.graph for value in node.outputs} | {id(v) for v in model.graph.inputs}
    shown = {id(value): value for value in tensors.values() if value is not None and id(value) in here}
    model.graph.outputs.clear()
    names = {}
    for value in shown.values():
        names[id(value)] = str(value.name)
        model.graph.outputs.append(value)
    if not names:
        return dict.fromkeys(found, True)
    for value in model.graph.outputs:
        if value.dtype is None:
            value.dtype = ir.DataType.FLOAT
        value.shape = None
    try:
        old, new = _both(part, ir.to_proto(model).SerializeToString(), list(dict.fromkeys(names.values())), feeds)
    except Exception:  # the graph does not run with these outputs
        return dict.fromkeys(found, True)
    times = {}
    for one, tensor in tensors.items():
        if tensor is None or id(tensor) not in names:
            times[one] = True
            continue
        before, after = old[names[id(tensor)]], new[names[id(tensor)]]
        if one.axis is None:  # a Loop: its trip count
            times[one] = int(before.reshape(-1)[0]) in (1, *part.stream.layout.shape[:1])
            continue
        changed = changed_positions(before, after, one.axis)
        times[one] = len(changed) == 1 or not changed.all()
    return times
