"""Exports any ``torch.nn.Module`` to a judged file: ``export(module, example, states, "plant.onnx")``.

``forward`` takes a stream's new rows and its state, and returns outputs and the new state, as PyTorch's recurrent
layers do. The exporter finds its call, its batch axis and its time axis by running it (:mod:`export.look`), and prints
them.
"""

from __future__ import annotations

import re
import shlex
import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import Tensor, nn

from export import document
from export.adapter import Adapted
from export.build import GOLDEN_BYTES, RefusedError, graph
from export.file import draft_of, write
from export.forward import ExportError
from export.look import ModuleSignature, Say, evaluating, fits, look
from export.whole import in_pieces, whole
from streamer import tasks
from streamer.contract.judge import CHUNK_TOLERANCE, Finding, Verdict
from streamer.contract.manifest import Condition, Input, Manifest, StreamInput
from streamer.contract.probe import Arrays, Signal, probe, run, worst
from streamer.engine.model import Model
from streamer.engine.proof import judge_file

__all__ = ["ExportError", "RefusedError", "export"]

#: Chunks of the golden example inside the file, and of the longer signal on which PyTorch and the file are compared.
#: Short chunks: at least so many steps, so that windows fill and slide.
GOLDEN, SIGNAL = 4, 12
GOLDEN_STEPS, SIGNAL_STEPS = 32, 192
#: Longer waits, in seconds, are announced.
LONG = 3.0


def export(
    module: nn.Module,
    example: Any,
    states: Any = None,
    output: str | Path | None = None,
    *,
    conditions: Mapping[str, Any] | None = None,
    sample_rate: int | None = None,
    step_seconds: float = 0.0,
    labels: Sequence[str] | None = None,
    limits: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    time: int | Mapping[str, int | None] | None = None,
    whole: bool = True,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    latency: int = 0,
    name: str | None = None,
    version: str = "1",
    licence: str = "not said",
    description: str = "",
    data: str = "not said",
    max_batch: int = 64,
    seed: int = 0,
    endurance: int = 400,
    say: Say = print,
) -> Verdict:
    """Write ``output`` (default: the class's name), judge it, and compare it with PyTorch.

    ``example``: the input of one call, a tensor or array; several inputs: a tuple, or a dictionary by parameter. Its
    length is the file's chunk. ``states``: the state at the start of a stream, as ``forward`` takes it: tensors,
    tuples, lists, dictionaries; ``None`` if ``forward`` makes it. ``conditions``: inputs that are set once for a
    stream, by parameter.

    ``sample_rate``: Hz, if the input is sound; the file takes it as 16-bit samples. ``step_seconds``: time of a row, 0:
    any. ``labels``: names of the classes on the last axis of the first output; the file then classifies, and logits
    become probabilities. ``limits``: lowest and highest value of an integer input (those of token ids are found).
    ``time``: the time axis, or a dictionary of them by input (``None``: no time axis), where trials don't find it.
    ``whole``: False if only calls of the example's length are right; PyTorch is then run call by call. ``task``,
    ``options``, ``latency`` (steps), ``name`` (default: the file's) ... : for the manifest. ``max_batch``: largest
    batch that is judged. ``endurance``: chunks of the judge's long run. ``say``: gets each line of the report.

    Raises :class:`ExportError` for a module that can't be exported, with code to write instead, and
    :class:`RefusedError` if the file breaks a law; nothing is written then.
    """
    target = Path(output if output is not None else f"{type(module).__name__.lower()}.onnx")
    fits(module)
    with evaluating(module):
        found = look(
            module, example, states, conditions or {}, limits=limits, time=time, whole=whole, seed=seed, say=say
        )
        specs, given = _specs(found, sample_rate, step_seconds)
        pcm = sample_rate is not None and specs[0].dtype == "int16"
        signal = _signal(found, specs, seed)
        adapted, want = _adapted(found, signal, pcm and found.given[specs[0].name].is_floating_point(), labels, say)
        info = {
            "name": name or _named(target.stem),
            "version": version,
            "task": task or ("raw" if labels is None else "classify"),
            "options": {**_labelled(labels, adapted), **(options or {})},
            "licence": licence,
            "description": description,
            "data": data,
            "revision": "exported",
            "latency": latency,
            "flush": latency,
            "hop": specs[0].chunk_shape[0] // max(1, next(iter(want.values())).shape[1] // len(signal)),
        }
        write_it = _Writer(adapted, specs, given, signal, want, info, module)
        with draft_of(target) as draft:
            verdict = write_it(draft, max_batch if found.axes.free else 1, seed, endurance, say)
            if found.axes.free and {finding.law for finding in verdict.refusals} == {"company"}:
                say("found  rows in a batch differ in their last bits from rows alone: max_batch = 1")
                verdict = write_it(draft, 1, seed, endurance, say)
            if not verdict.ok:
                raise RefusedError(verdict)
    say(f"wrote  {target}: {target.stat().st_size / 1e6:.1f} MB, keeps its laws, {len(verdict.findings)} checks")
    say(f"serve it: streamer serve --model {shlex.quote(str(target))}")
    return Verdict(target, seed, verdict.findings)


# -- the file's inputs and outputs ------------------------------------------------------------------------------------


def _specs(
    found: ModuleSignature, sample_rate: int | None, step_seconds: float
) -> tuple[tuple[Input, *tuple[StreamInput, ...]], tuple[Condition, ...]]:
    forward, axes = found.forward, found.axes
    specs: list[StreamInput] = []
    for name, layout in zip(forward.inputs, axes.inputs, strict=True):
        shape = tuple(layout.outward(found.given[name]).shape[1:])
        channels = shape[1] if len(shape) == 2 else 1
        bounds = (found.limits[name],) * channels if name in found.limits and len(shape) < 3 else None
        dtype = _dtype(found.given[name])
        if specs:
            specs.append(StreamInput(name=name, dtype=dtype, chunk_shape=shape, limits=bounds))
            continue
        if sample_rate is not None:
            if len(shape) == 2 and shape[0] == 1 < shape[1] and layout.time is None and dtype in ("float32", "int16"):
                raise ExportError(
                    f"sample_rate is for sound, and {name} is one row of {shape[1]} values. If they are samples, say "
                    f"time={{{name!r}: {0 if layout.batch else 1}}} (in the dictionary that the function of streamer "
                    "export returns). If they are the channels of a row, give step_seconds, the time of a row, instead "
                    "of sample_rate"
                )
            if len(shape) > 1 or dtype not in ("float32", "int16"):
                raise ExportError(
                    f"sample_rate is for sound, and {name} is {dtype} with rows of {list(shape[1:])}: give "
                    "step_seconds, the time of a row"
                )
            dtype = "int16"
        specs.append(
            Input(
                name=name,
                dtype=dtype,
                chunk_shape=shape,
                limits=bounds,
                sample_rate=sample_rate,
                step_seconds=None if sample_rate else float(step_seconds),
            )
        )
    conditions = [
        Condition(
            name=name,
            dtype=_dtype(found.given[name]),
            shape=tuple(layout.outward(found.given[name]).shape[1:]),
            limits=found.limits.get(name),
        )
        for name, layout in zip(forward.conditions, axes.conditions, strict=True)
    ]
    first, *more = specs
    assert isinstance(first, Input)
    return (first, *more), tuple(conditions)


def _dtype(tensor: Tensor) -> Any:
    """The dtype's name in a manifest; :func:`export.forward.tensors` has refused dtypes without one."""
    return str(tensor.dtype).removeprefix("torch.")


def _signal(found: ModuleSignature, specs: Sequence[StreamInput], seed: int) -> Signal:
    """The signal of one stream on which PyTorch and the file are compared."""
    length, rng = specs[0].chunk_shape[0], np.random.default_rng(seed)
    count = max(SIGNAL, -(-SIGNAL_STEPS // length))
    conditions = {
        name: layout.outward(found.values(name, found.given[name].shape))[:1].numpy()
        for name, layout in zip(found.forward.conditions, found.axes.conditions, strict=True)
    }
    return Signal({spec.name: probe(spec, count, 1, rng) for spec in specs}, conditions)


def _adapted(
    found: ModuleSignature, signal: Signal, scaled: bool, labels: Sequence[str] | None, say: Say
) -> tuple[Adapted, Arrays]:
    """The module with the file's inputs and outputs, and PyTorch's outputs for ``signal``."""
    adapted = Adapted(found, pcm=scaled)
    want = _whole(adapted, signal, found)
    first = found.forward.output_names[0]
    if labels is not None and not ((want[first] >= 0) & (want[first] <= 1)).all():
        function = "softmax" if len(labels) > 1 else "sigmoid"
        say(f"did    made probabilities of {first} by a {function}")
        adapted = Adapted(found, pcm=scaled, probabilities=function)
        want = _whole(adapted, signal, found)
    if scaled:
        say("did    made the input 16-bit samples, which are scaled to [-1, 1)")
    for name in adapted.folded:
        say(f"did    folded in the start of {name}, which is not zero")
    return adapted, want


def _whole(adapted: Adapted, signal: Signal, found: ModuleSignature) -> Arrays:
    try:
        return whole(adapted, signal)
    except Exception as error:  # raised by the module
        reason = " ".join(str(error).split())[:200]
        unlimited = [n for n, t in found.given.items() if not t.is_floating_point() and n not in found.limits]
        hint = f": give the limits of {', '.join(unlimited)}, limits=(0, highest)" if unlimited else ""
        raise ExportError(f"forward fails on the test signal ({reason}){hint}") from error


def _labelled(labels: Sequence[str] | None, adapted: Adapted) -> dict[str, Any]:
    """The options of the task ``classify``. An output without a time axis is the answer for the stream so far."""
    if labels is None:
        return {}
    return {"labels": list(labels), "mode": "final" if adapted.untimed and len(labels) > 1 else "running"}


def _named(stem: str) -> str:
    """The model's name, from the file's name."""
    return (re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model")[:64]


# -- writing and judging ----------------------------------------------------------------------------------------------


class _Writer:
    """Writes the file with its manifest, and judges it; for any ``max_batch``."""

    def __init__(
        self,
        adapted: Adapted,
        specs: tuple[Input, *tuple[StreamInput, ...]],
        conditions: tuple[Condition, ...],
        signal: Signal,
        want: Arrays,
        info: Mapping[str, Any],
        module: nn.Module,
    ) -> None:
        self._adapted, self._specs, self._conditions = adapted, specs, conditions
        self._signal, self._want, self._info = signal, want, info
        self._parameters = sum(weight.numel() for weight in module.parameters())
        self._receptive_field = getattr(module, "receptive_field", None)
        try:
            tasks.create(self.manifest(1, 0.0))  # refuses invalid options before the slow part
        except (ValidationError, tasks.TaskError) as error:
            problems = [e["msg"] for e in error.errors()] if isinstance(error, ValidationError) else [str(error)]
            raise ExportError(f"the model's description is invalid: {'; '.join(problems)}") from error

    def __call__(self, draft: Path, max_batch: int, seed: int, endurance: int, say: Say) -> Verdict:
        say("did    began to trace with PyTorch's exporter")
        try:
            model = graph(self._adapted, (*self._specs, *self._conditions), free=max_batch > 1)
        except Exception as error:  # the exporter raises many types
            raise ExportError(f"PyTorch's exporter can't trace forward: {_cause(error)}") from error
        write(draft, model, self.manifest(max_batch, 0.0))
        loaded, begun = Model.load(draft), clock.perf_counter()
        got = {name: np.concatenate(list(array), axis=1) for name, array in run(loaded, self._signal)[0].items()}
        each = (clock.perf_counter() - begun) / len(self._signal)
        reached, _, _ = worst(got, self._want)
        write(draft, model, self.manifest(max_batch, float(f"{reached:.2g}") if np.isfinite(reached) else 1e9))
        estimate = each * (endurance + 300)
        say(f"did    began to judge the file{f', which takes about {estimate:.0f} s' if estimate > LONG else ''}")
        rest = judge_file(draft, seed=seed, long_chunks=endurance)
        return Verdict(draft, seed, (*self._beside_pytorch(got, seed), *rest.findings))

    def _beside_pytorch(self, got: Arrays, seed: int) -> list[Finding]:
        """Compare the file's outputs ``got`` with PyTorch's, and PyTorch's in pieces with PyTorch's as a whole."""
        if not self._adapted.whole:
            return [_finding("PyTorch call by call = ONNX", worst(got, self._want)[0])]
        rng, count = np.random.default_rng(seed), len(self._signal)
        cuts = np.sort(rng.choice(np.arange(1, count), size=min(3, count - 1), replace=False))
        lengths = np.diff([0, *cuts, count]).tolist()
        ends = np.cumsum(lengths)
        want = {
            name: np.stack([array[:, end - 1] for end in ends], axis=1) if name in self._adapted.untimed else array
            for name, array in self._want.items()
        }
        return [
            _finding(
                "PyTorch whole = PyTorch in pieces", worst(in_pieces(self._adapted, self._signal, lengths), want)[0]
            ),
            _finding("PyTorch whole = ONNX chunked", worst(got, self._want)[0]),
        ]

    def manifest(self, max_batch: int, tolerance: float) -> Manifest:
        """The manifest. ``tolerance``: the measured deviation of the file from PyTorch."""
        count, length = len(self._signal), self._specs[0].chunk_shape[0]
        each = max(1, sum(array.nbytes for array in self._want.values()) // count)
        some = min(max(GOLDEN, min(-(-GOLDEN_STEPS // length), GOLDEN_BYTES // each)), count)
        steps = {name: array.shape[1] // count for name, array in self._want.items()}
        start = {name: tensor.numpy() for name, tensor in sorted(self._adapted.initial_state(1).items())}
        inputs = {name: array[:some] for name, array in self._signal.inputs.items()}
        first = inputs.pop(self._specs[0].name)
        return document.manifest(
            self._info,
            source=self._specs[0],
            more_inputs=self._specs[1:],
            conditions=self._conditions,
            states={name: (array.dtype.name, array.shape[1:]) for name, array in start.items()},
            outputs={name: (array.dtype.name, (steps[name], *array.shape[2:])) for name, array in self._want.items()},
            example=document.golden(
                first,
                {name: array[:, : some * steps[name]] for name, array in self._want.items()},
                more_inputs=inputs,
                conditions=self._signal.conditions,
            ),
            tolerance=tolerance,
            max_batch=max_batch,
            parameters=self._parameters,
            receptive_field=self._receptive_field,
        )


def _cause(error: BaseException) -> str:
    """The root cause of the exporter's error, and the line of ``forward`` that it names."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if "data-dependent" in text:
        where = re.search(r"Caused by: \(?(.*?) in ", text)
        at = f" ({where[1]})" if where else ""
        return f"it branches on a tensor's value{at}, which a graph can't do: write torch.where"
    return " ".join(text.split())[:300] or type(error).__name__


def _finding(check: str, deviation: float) -> Finding:
    return Finding("chunk", check, deviation <= CHUNK_TOLERANCE, deviation, CHUNK_TOLERANCE)
