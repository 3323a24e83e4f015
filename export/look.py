"""Analyses a module by running it, and prints the findings: its call, its state, its axes, its limits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.axes import TensorLayout, find_batch, fixed_batch
from export.clock import ModuleAxes, find_time
from export.forward import ExportError, Forward, bind, tensors
from export.recurrent import carried, optional_state, remembers, three_lines

__all__ = ["ModuleSignature", "Say", "evaluating", "fits", "look"]

#: Callback for each line of the report.
Say = Callable[[str], None]
#: Maximum size of an ONNX file in bytes, with room for the graph.
MOST_BYTES = 2**31 - 2**24

Limits = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ModuleSignature:
    """``given``: example inputs and conditions, as the module takes them. ``start``: the state of a new stream.
    ``limits``: lowest and highest value of integer inputs. ``values``: makes test values for an input and a shape."""

    forward: Forward
    start: list[Tensor]
    given: dict[str, Tensor]
    axes: ModuleAxes
    limits: Limits
    values: Callable[[str, Sequence[int]], Tensor]


def look(
    module: nn.Module,
    example: Any,
    states: Any,
    conditions: Mapping[str, Any],
    *,
    limits: tuple[int, int] | Mapping[str, tuple[int, int]] | None,
    time: int | Mapping[str, int | None] | None,
    whole: bool,
    seed: int,
    say: Say,
) -> ModuleSignature:
    """Analyse ``module``. See :func:`export.export` for the arguments. Raises :class:`ExportError`."""
    inputs = _by_name(module, tensors("the example", example))
    given = {**inputs, **tensors("conditions", dict(conditions))}
    forward, start = _forward(module, inputs, {n: given[n] for n in given if n not in inputs}, states, say)
    say(f"found  {forward.text()}")
    bounds = _token_limits(forward, given, start) | _given_limits(limits, forward, given)
    values = _values(given, bounds, seed)
    _refuse_hidden_state(forward, {name: values(name, tensor.shape) for name, tensor in given.items()}, start)
    tensors_given = [given[name] for name in (*forward.inputs, *forward.conditions)]
    places = find_batch(forward, tensors_given, start, values)
    if places is None:
        places = fixed_batch(forward, tensors_given, start)
    known = dict(time) if isinstance(time, Mapping) else {} if time is None else dict.fromkeys(inputs, time)
    axes = find_time(forward, places, tensors_given, start, values, time=known, whole=whole)
    if states is None and not axes.whole and start and "carried" in forward.parameters:
        raise ExportError(
            "forward takes no state, and one call with several chunks gives other outputs than several calls: the "
            f"states of its layers are not all it remembers. Pass the state in and out:\n{three_lines(module)}"
        )
    found = ModuleSignature(forward, start, given, axes, bounds, values)
    for line in _report(found):
        say(f"found  {line}")
    return found


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode within the block; each part's training mode is restored afterwards."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


# -- the call ---------------------------------------------------------------------------------------------------------


def fits(module: nn.Module) -> None:
    """Raises :class:`ExportError` unless ``module`` is a module on the CPU with weights of a supported size and
    dtype."""
    if not isinstance(module, nn.Module):
        raise ExportError(f"{module!r} is not a torch.nn.Module: give the module itself, not its class or its weights")
    weights = [*module.parameters(), *module.buffers()]
    if away := {str(weight.device) for weight in weights if weight.device.type != "cpu"}:
        raise ExportError(f"the module is on {', '.join(sorted(away))}: call .cpu() on it first")
    if any(weight.dtype == torch.bfloat16 for weight in weights):
        raise ExportError("the module computes in bfloat16, which a file can't hold: call .float() on it first")
    if sum(weight.numel() * weight.element_size() for weight in weights) > MOST_BYTES:
        raise ExportError("the module has more than 2 GiB of weights, and a model file has at most 2 GiB")


def _by_name(module: nn.Module, example: Any) -> dict[str, Tensor]:
    """The example's tensors by parameter; a tuple gives the first parameters of ``forward``."""
    if isinstance(example, Mapping):
        return dict(example)
    several = example if isinstance(example, tuple | list) else (example,)
    parameters = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(several) > len(parameters):
        raise ExportError(
            f"forward{inspect.signature(module.forward)} takes {len(parameters)} tensors, the example has "
            f"{len(several)}"
        )
    named = dict(zip(parameters, several, strict=False))
    if strange := [name for name, value in named.items() if not isinstance(value, Tensor)]:
        raise ExportError(f"the example for {', '.join(strange)} is not a tensor: of several inputs give a flat tuple")
    return named


def _forward(
    module: nn.Module, inputs: dict[str, Tensor], conditions: dict[str, Tensor], states: Any, say: Say
) -> tuple[Forward, list[Tensor]]:
    """How ``forward`` is called, and the state of a new stream."""
    if states is not None:
        return bind(module, inputs, conditions, tensors("the states", states))
    try:
        if remembered := remembers(module, lambda: module(**inputs, **conditions)):
            raise ExportError(_kept_on_module(remembered, module))
        found = optional_state(module, inputs, conditions)
        if found is not None:
            say("found  forward starts from a state of zeros if it gets none, and returns the new state")
            return found
        found = carried(module, inputs, conditions)
    except ExportError as error:
        raise ExportError(f"{error}. Pass the state in and out:\n{three_lines(module)}") from error
    except Exception as error:
        raise ExportError(
            f"forward can't be called with the example alone: {' '.join(str(error).split())[:200]}"
        ) from error
    if found is None:
        raise ExportError(
            "forward takes no state, and it has no recurrent layer with a state, so there is nothing that a stream "
            f"could remember. Pass the state in and out:\n{three_lines(module)}"
        )
    say(f"found  no state in forward: that of its layers ({', '.join(found[0].state_names)}) is passed in and out")
    return found


def _refuse_hidden_state(forward: Forward, given: Mapping[str, Tensor], start: list[Tensor]) -> None:
    """Raises :class:`ExportError` if a call changes the module, or if two equal calls differ."""
    if remembered := remembers(forward.module, lambda: forward(given, start)):
        raise ExportError(_kept_on_module(remembered, forward.module))
    with torch.no_grad():
        (first, _), (again, _) = forward(given, start), forward(given, start)
    if not all(torch.equal(a, b) or bool(a.isnan().any()) for a, b in zip(first, again, strict=True)):
        raise ExportError(
            "forward gives different outputs for the same inputs: leave out what is random "
            "(F.dropout needs training=self.training)"
        )


def _kept_on_module(names: list[str], module: nn.Module) -> str:
    changed = ", ".join(f"self.{name}" for name in names)
    return f"a call of forward changes {changed}: a stream's state must not be on the module, which serves all streams"


# -- limits of integers -----------------------------------------------------------------------------------------------


def _token_limits(forward: Forward, given: Mapping[str, Tensor], start: list[Tensor]) -> Limits:
    """The limits of integer inputs that index an embedding: its rows."""
    found: Limits = {}
    storages = {
        given[name].untyped_storage().data_ptr(): name
        for name in (*forward.inputs, *forward.conditions)
        if not given[name].is_floating_point()
    }

    def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
        name = storages.get(args[0].untyped_storage().data_ptr()) if args and isinstance(args[0], Tensor) else None
        if name is not None and isinstance(layer, nn.Embedding):
            found[name] = (0, min(layer.num_embeddings - 1, found.get(name, (0, 2**31))[1]))

    embeddings = [layer for layer in forward.module.modules() if isinstance(layer, nn.Embedding)]
    handles = [layer.register_forward_pre_hook(hook) for layer in embeddings]
    try:
        with torch.no_grad():
            forward(given, start)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _given_limits(
    limits: tuple[int, int] | Mapping[str, tuple[int, int]] | None, forward: Forward, given: Mapping[str, Tensor]
) -> Limits:
    if limits is None:
        return {}
    integers = [name for name in given if given[name].dtype not in (torch.bool, torch.float32, torch.float64)]
    named = dict(limits) if isinstance(limits, Mapping) else dict.fromkeys(integers, limits)
    for name, (low, high) in named.items():
        if name not in integers or not low <= 0 <= high:
            raise ExportError(f"limits of {name}: ({low}, {high}): limits are for integer inputs, and must include 0")
    return {name: (int(low), int(high)) for name, (low, high) in named.items()}


def _values(given: Mapping[str, Tensor], limits: Limits, seed: int) -> Callable[[str, Sequence[int]], Tensor]:
    """A function that makes random values of an input's dtype, within its limits."""
    rng = np.random.default_rng(seed)

    def values(name: str, shape: Sequence[int]) -> Tensor:
        dtype = given[name].dtype
        if dtype.is_floating_point:
            return torch.from_numpy(rng.standard_normal(tuple(shape))).to(dtype)
        low, high = limits.get(name, (0, 1))
        return torch.from_numpy(rng.integers(low, high, tuple(shape), endpoint=True)).to(dtype)

    return values


# -- what is printed -------------------------------------------------------------------------------------------------


def _report(found: ModuleSignature) -> Iterator[str]:
    """The lines of the report."""
    forward, axes = found.forward, found.axes
    for name, layout in zip(forward.inputs, axes.inputs, strict=True):
        tensor = found.given[name]
        step = layout.outward(tensor)
        count, each = step.shape[1], list(step.shape[2:])
        steps = f"{count} step{'' if count == 1 else 's'} of {_row_text(each)}"
        more = "a longer example makes longer chunks"
        if layout.time is None and each:
            more = f"if they are steps: time={{{name!r}: {1 if layout.batch == 0 else 0}}}"
        yield f"input {name} {_shape_text(tensor)}: {steps}, {_batch_text(layout)}{_time_text(layout)}; {more}"
        if name in found.limits:
            yield f"input {name} holds whole numbers from {found.limits[name][0]} to {found.limits[name][1]}"
    for name, layout in zip(forward.conditions, axes.conditions, strict=True):
        yield f"condition {name} {_shape_text(found.given[name])}: set once for a stream, {_batch_text(layout)}"
    for name, layout, tensor in zip(forward.state_names, axes.states, found.start, strict=True):
        yield f"state {name} {_shape_text(tensor)}: {_batch_text(layout)}"
    with torch.no_grad():
        outputs, _ = forward(found.given, found.start)
    for name, layout, tensor in zip(forward.output_names, axes.outputs, outputs, strict=True):
        once = "" if layout.time is not None or axes.inputs[0].time is None else ", one a chunk"
        yield f"output {name} {_shape_text(tensor)}: {_row_text(list(layout.outward(tensor).shape[2:]))} a step{once}"
    if axes.whole:
        yield "one call with several chunks gives what several calls give: PyTorch is run whole beside the file"
    elif axes.differs is not None:
        yield (
            f"one call with several steps gives other outputs than several calls (off by {axes.differs:.1g}): PyTorch "
            "is run step by step beside the file"
        )
    else:
        yield "forward takes this length only: PyTorch is run call by call beside the file"
    if not axes.free:
        yield "rows of a batch are not independent, or forward takes one stream only: max_batch = 1, one stream a call"


def _shape_text(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _row_text(shape: list[int]) -> str:
    if not shape:
        return "one value"
    return (
        f"{shape[0]} value{'' if shape[0] == 1 else 's'}"
        if len(shape) == 1
        else f"{' x '.join(map(str, shape))} values"
    )


def _batch_text(layout: TensorLayout) -> str:
    return "no batch" if layout.batch is None else f"batch on axis {layout.batch}"


def _time_text(layout: TensorLayout) -> str:
    if layout.time is None:
        return ", no axis of time"
    return f", time on axis {layout.time + (layout.batch is not None and layout.time >= layout.batch)}"
