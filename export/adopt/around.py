"""Builds the adopted graph: the contract's tensors outside, the foreign graph inside, the host's code in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.adopt.batch import Settled
from export.adopt.chain import ChainOutput, GraphChain
from export.adopt.ops import Ops
from export.adopt.report import Report
from export.adopt.spectrum import add_up, analysis, inverse, windowed
from export.adopt.stream import InputStream
from streamer.contract.manifest import Condition, State, StreamInput

__all__ = ["Adopted", "Outside", "around", "put", "whole"]

#: A state: whether the stream has begun.
FLAG = "adopt.started"


@dataclass(frozen=True)
class Adopted:
    """The adopted graph, and the states and conditions of its manifest."""

    model: ir.Model
    states: tuple[State, ...]
    conditions: tuple[Condition, ...] = ()


class Outside:
    """Collects the contract's inputs and outputs. ``batch``: the name of axis 0, or its fixed size."""

    def __init__(self, batch: str | int) -> None:
        self.batch = batch
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.states: list[State] = []
        self.conditions: list[Condition] = []

    def take(self, name: str, dtype: str, shape: tuple[int, ...]) -> ir.Value:
        """A new input [batch, *shape]."""
        value = ir.Value(
            name=name, shape=ir.Shape([self.batch, *shape]), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        )
        self.inputs.append(value)
        return value

    def give(self, ops: Ops, value: ir.Value, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Make ``value`` an output [batch, *shape]."""
        value = ops("Identity", value)  # a value of the foreign graph may be several outputs, or also an input
        value.name, value.shape = name, ir.Shape([self.batch, *shape])
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        self.outputs.append(value)

    def state(self, name: str, out: str, dtype: str, shape: tuple[int, ...]) -> ir.Value:
        """The input of a new state; :meth:`give` its output ``out``."""
        self.states.append(State.model_validate({"in": name, "out": out, "dtype": dtype, "shape": shape}))
        return self.take(name, dtype, shape)

    def condition(self, name: str, dtype: str, shape: tuple[int, ...]) -> ir.Value:
        """The input of a new condition."""
        self.conditions.append(Condition.model_validate({"name": name, "dtype": dtype, "shape": shape}))
        return self.take(name, dtype, shape)


def around(chain: GraphChain, report: Report) -> Adopted:
    """The adopted graph. Consumes the graphs of ``chain``."""
    ops, outside = Ops(), Outside("batch" if chain.free else 1)
    stream = chain.source
    spec = chain.input
    x = outside.take(spec.name, spec.dtype, spec.chunk_shape)
    starts = bool(stream.overlap and stream.start) or any(
        memory.starts for settled in chain.parts for memory in settled.part.states
    )
    flag = outside.state(FLAG, f"{FLAG}.next", "bool", (1,)) if starts else None
    x = _with_overlap(ops, outside, stream, x, spec, flag, report)
    more = {}
    for one, other in zip(chain.parts[0].part.more, chain.more, strict=True):
        value = outside.take(other.name, other.dtype, other.chunk_shape)
        more[one.name] = ops.inward(_with_overlap(ops, outside, one, value, other, flag, report), one.layout)
    if chain.scale is not None:
        x = ops.cast(x, "float32" if chain.host is not None else stream.dtype)
        if chain.scale != 1:
            x = ops("Mul", x, ops.constant(chain.scale, "float32" if chain.host is not None else stream.dtype))
        report.did(f"made the input 16-bit PCM, times {chain.scale:g}")
    if chain.host is None:
        gave: list[Mapping[str, ir.Value]] = [put(ops, outside, chain.parts[0], x, flag, "", report, more=more)]
        sound = None
    else:
        gave, sound = _spectral(chain, ops, outside, x, flag, report)
    if flag is not None:
        outside.give(ops, ops("Or", flag, ops("Not", flag)), f"{FLAG}.next", "bool", (1,))
    for result in chain.results:
        output = chain.output(result)
        made = sound if result.kind != "plain" else ops.outward(gave[result.part][result.source], result.layout)
        assert made is not None
        outside.give(ops, made, result.name, output.dtype, output.shape)
    return Adopted(
        whole([settled.model for settled in chain.parts], ops, outside),
        tuple(outside.states),
        tuple(outside.conditions),
    )


def put(
    ops: Ops,
    outside: Outside,
    settled: Settled,
    x: ir.Value,
    flag: ir.Value | None,
    prefix: str,
    report: Report,
    counts: ir.Value | None = None,
    more: Mapping[str, ir.Value] | None = None,
) -> dict[str, ir.Value]:
    """Append a foreign graph with input ``x`` (canonical) and its states; returns its outputs (raw) by name.

    ``flag`` bool [B, 1]: the graph has run in this stream before. ``counts`` bool [B, 1]: this call belongs to the
    stream, else its states do not change; ``None``: every call does. ``prefix``: of the states' names. ``more``: the
    part's further streams, raw.
    """
    part = settled.part
    given = {part.stream.name: ops.inward(x, part.stream.layout), **(more or {})}
    before: dict[str, ir.Value] = {}
    dtypes = {memory.name: memory.dtype for memory in part.memories}

    def keep(new: ir.Value, name: str) -> ir.Value:
        if counts is None:
            return new
        reach = ops.reshape(counts, (-1,) + (1,) * len(settled.memories[name].shape))
        return ops.choose(reach, new, before[name], dtypes[name])

    for memory in part.conditions:
        layout = settled.memories[memory.name]
        given[memory.name] = ops.inward(outside.condition(memory.name, memory.dtype, layout.shape), layout)
    for memory in part.states:
        layout = settled.memories[memory.name]
        out = f"{memory.name}.next" if memory.out is None else memory.out
        state = before[memory.name] = outside.state(
            f"{prefix}{memory.name}", f"{prefix}{out}", memory.dtype, layout.shape
        )
        if memory.starts and flag is not None:
            reach = ops.reshape(flag, (-1,) + (1,) * len(layout.shape))
            first = layout.outward(memory.first()) if memory.start.ndim else memory.start
            state = ops.choose(reach, state, ops.constant(first, memory.dtype), memory.dtype)
            shown = f"{float(memory.start):g}" if memory.start.ndim == 0 else f"{memory.start.size} values"
            report.did(f"folded in the start of {memory.name}, {shown}: its state in the file starts as zeros")
        given[memory.name] = ops.inward(state, layout)
        if memory.out is None:
            counted = keep(ops("Add", state, ops.constant(memory.step, memory.dtype)), memory.name)
            outside.give(ops, counted, f"{prefix}{out}", memory.dtype, layout.shape)
            report.did(f"brought the counter {memory.name} inside")
    gave = ops.graph(settled.model, given, prefix or "model/")
    for memory in part.memories:
        if memory.out is not None:
            layout = settled.memories[memory.name]
            value = keep(ops.outward(gave[memory.out], layout), memory.name)
            outside.give(ops, value, f"{prefix}{memory.out}", memory.dtype, layout.shape)
    return gave


def _with_overlap(
    ops: Ops,
    outside: Outside,
    stream: InputStream,
    x: ir.Value,
    spec: StreamInput,
    flag: ir.Value | None,
    report: Report,
) -> ir.Value:
    """``x``, clipped to its limits, after the overlap from the call before."""
    if stream.limit is not None:
        low, high = ops.constant(0, stream.dtype), ops.constant(stream.limit, stream.dtype)
        x = ops("Where", ops("Less", x, low), low, x)
        x = ops("Where", ops("Less", high, x), high, x)
        report.did(f"clipped {stream.name} to 0 to {stream.limit}, the last row of the table that it indexes")
    if not stream.overlap:
        return x
    rest = (stream.overlap, *spec.chunk_shape[1:])
    state = outside.state(f"{spec.name}.overlap", f"{spec.name}.overlap.next", spec.dtype, rest)
    before = state
    if flag is not None and stream.start:
        reach = ops.reshape(flag, (-1,) + (1,) * len(rest))
        before = ops.choose(reach, state, ops.constant(stream.start, spec.dtype), spec.dtype)
        report.did(f"folded in the start of the overlap of {stream.name}, {stream.start:g}")
    x = ops.join(before, x, axis=1)
    kept = ops.cut(x, stream.chunk, stream.chunk + stream.overlap, 1)
    outside.give(ops, kept, f"{spec.name}.overlap.next", spec.dtype, rest)
    unit = "rows" if stream.kind == "rows" else "samples"
    report.did(f"brought the last {stream.overlap} {unit} of a call inside, as the state {state.name}")
    return x


def _spectral(
    chain: GraphChain, ops: Ops, outside: Outside, x: ir.Value, flag: ir.Value | None, report: Report
) -> tuple[list[Mapping[str, ir.Value]], ir.Value | None]:
    """The host's transforms: frames in, one or two graphs, and sound out by overlap-add. Returns the outputs (raw) of
    each graph, and the sound if there is any."""
    host, stream = chain.host, chain.source
    assert host is not None
    count, bins = stream.layout.shape[0], host.fft // 2 + 1
    real, imaginary = analysis(ops, x, host, count)
    if stream.kind == "complex":
        feature = ops.join(*(ops.reshape(v, (-1, count, bins, 1)) for v in (real, imaginary)), axis=3)
    elif stream.kind == "frame":
        feature = inverse(ops, real, imaginary, host)
    else:
        feature = ops("Add", ops("Mul", real, real), ops("Mul", imaginary, imaginary))
        feature = feature if stream.kind == "power" else ops("Sqrt", feature)
    report.did(f"brought the {host.window} window and the transform of {host.fft} samples inside, every {host.hop}")
    gave: list[Mapping[str, ir.Value]] = [
        put(ops, outside, chain.parts[0], _as(ops, feature, stream.dtype), flag, "", report)
    ]
    result = chain.sound
    if result is None:
        return gave, None
    y = ops.cast(ops.outward(gave[0][result.source], result.layout), "float32")
    frames = (
        y
        if result.kind == "frame"
        else inverse(ops, *_spectrum(ops, result, y, real, imaginary, host.fft // 2 + 1), host)
    )
    if len(chain.parts) > 1:
        second = chain.parts[1].part
        gave.append(put(ops, outside, chain.parts[1], _as(ops, frames, second.stream.dtype), flag, "chain.", report))
        assert chain.last is not None
        frames = ops.cast(ops.outward(gave[1][second.roles.results[0]], chain.last), "float32")
        report.did("put the second graph behind the first one, frame by frame")
    frames = windowed(ops, frames, host)
    left = (host.fft - host.hop,)
    if left == (0,):  # frames that don't overlap
        return gave, ops.reshape(frames, (-1, count * host.hop))
    tail = outside.state("audio.tail", "audio.tail.next", "float32", left)
    sound, rest = add_up(ops, frames, tail, host, count)
    outside.give(ops, rest, "audio.tail.next", "float32", left)
    report.did("brought the overlap-add inside, as the state audio.tail")
    return gave, sound


def _spectrum(
    ops: Ops, result: ChainOutput, y: ir.Value, real: ir.Value, imaginary: ir.Value, bins: int
) -> tuple[ir.Value, ir.Value]:
    """Real and imaginary part of the output spectrum. ``y``: [B, frames, bins] real, or [B, frames, bins, 2]
    complex."""
    if len(result.layout.shape) == 2:
        return ops("Mul", real, y), ops("Mul", imaginary, y)
    count = result.layout.shape[0]
    a, b = (ops.reshape(ops.cut(y, n, n + 1, 3), (-1, count, bins)) for n in (0, 1))
    if result.kind == "spectrum":
        return a, b
    return (
        ops("Sub", ops("Mul", real, a), ops("Mul", imaginary, b)),
        ops("Add", ops("Mul", real, b), ops("Mul", imaginary, a)),
    )


def _as(ops: Ops, x: ir.Value, dtype: str) -> ir.Value:
    return x if dtype == "float32" else ops.cast(x, dtype)


def whole(models: Sequence[ir.Model], ops: Ops, outside: Outside) -> ir.Model:
    """The graph of all collected nodes. ``models``: the graphs that :class:`Ops` has consumed, for their opsets."""
    imports: dict[str, int] = {}
    version = 0
    for model in models:
        for domain, number in model.opset_imports.items():
            imports[domain] = max(number, imports.get(domain, 0))
        version = max(version, model.ir_version)
    graph = ir.Graph(
        outside.inputs,
        outside.outputs,
        nodes=ops.nodes,
        initializers=ops.initial,
        opset_imports=imports,
        name="adopted",
    )
    return ir.Model(graph, ir_version=version)
