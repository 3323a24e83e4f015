"""Builds a file from a checkpoint's module: trace, fold, quantise, describe, judge, move the draft to its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from export import document
from export.file import draft_of, write
from export.fold import fold, learned, name_batch_axis, strip
from export.int8 import quantise
from export.trace import StreamingModule, trace
from export.verify import onnx_chunked, torch_whole, verify
from streamer.contract.judge import Verdict, probe
from streamer.contract.manifest import Condition, Input, Manifest, StreamInput
from streamer.contract.probe import worst
from streamer.engine.model import Model

__all__ = ["RefusedError", "build", "graph"]

#: Chunks of the golden example inside the file, and of the longer signal on which PyTorch and ONNX are compared.
GOLDEN, SIGNAL = 4, 12
#: The same in steps, for short chunks: a model that learns online needs some steps before its first useful output.
GOLDEN_STEPS, SIGNAL_STEPS = 96, 192
#: Maximum size of the example's outputs, beyond ``GOLDEN`` chunks.
GOLDEN_BYTES = 192 * 1024


class RefusedError(Exception):
    """The file breaks a law and was not written; ``verdict`` has the findings."""

    def __init__(self, verdict: Verdict) -> None:
        findings = "\n".join(
            f"  {f.law}: {f.check}: {'' if f.measured is None else f'{f.measured:.2g} of {f.tolerance:.2g} '}{f.detail}"
            for f in verdict.refusals
        )
        super().__init__(f"the file breaks its laws and was not written:\n{findings}")
        self.verdict = verdict


def graph(
    module: StreamingModule,
    inputs: Sequence[StreamInput | Condition],
    *,
    int8: bool = False,
    free: bool = True,
    cell_limit: float | None = None,
) -> ir.Model:
    """The folded graph for chunks of ``inputs``, without traces of the exporting machine. ``free``: the batch is a
    dynamic axis. ``cell_limit``: see :func:`export.int8.quantise`. Raises ``ValueError`` if ``int8`` is asked for and
    nothing can be quantised."""
    assert isinstance(module, torch.nn.Module)
    shapes = {spec.name: spec.shape if isinstance(spec, Condition) else spec.chunk_shape for spec in inputs}
    chunk = {spec.name: torch.from_numpy(np.zeros((1, *shapes[spec.name]), spec.dtype)) for spec in inputs}
    model = trace(module, chunk, free=free)
    weights = learned(model, {name for name, _ in module.named_parameters()})
    fold(model)
    if int8 and not quantise(model, weights, cell_limit):
        raise ValueError("nothing in this model can be quantised: it has no large trained matrix, and no LSTM")
    if free:
        name_batch_axis(model)
    strip(model)
    return model


def build(
    module: StreamingModule,
    info: Mapping[str, Any],
    target: Path,
    *,
    chunk_ms: float | None = None,
    int8: bool = False,
    max_batch: int = 64,
    seed: int = 0,
    long_chunks: int = 2000,
) -> Verdict:
    """Write ``target``. Raises :class:`RefusedError` if a law is broken, and ``ValueError`` for a bad description; an
    existing file then stays unchanged. ``long_chunks``: chunks of the judge's long run."""
    assert isinstance(module, torch.nn.Module)
    parameters = sum(weight.numel() for weight in module.parameters())
    spec = document.input_spec(info, chunk_ms)
    length = spec.chunk_shape[0]
    golden, count = max(GOLDEN, -(-GOLDEN_STEPS // length)), max(SIGNAL, -(-SIGNAL_STEPS // length))
    chunks = probe(spec, count, 1, np.random.default_rng(seed))  # [n, 1, *chunk_shape]
    signal = np.ascontiguousarray(np.concatenate(list(chunks), axis=1))  # [1, n * chunk, ...]
    whole = torch_whole(module, signal)
    each = sum(array.nbytes for array in whole.values()) // count
    golden = max(GOLDEN, min(golden, GOLDEN_BYTES // each))
    once = spec.model_copy(update={"chunk_shape": signal.shape[1:]})

    def describe(source: Input, tolerance: float) -> Manifest:
        """The manifest of the file itself, or of the file with the whole signal as its only chunk."""
        parts = count if source is spec else 1
        some = min(golden, parts)
        steps = {name: array.shape[1] // parts for name, array in whole.items()}
        recorded = {name: array[:, : some * steps[name]] for name, array in whole.items()}
        return document.manifest(
            info,
            source=source,
            states=_states(module),
            outputs={name: (array.dtype.name, (steps[name], *array.shape[2:])) for name, array in whole.items()},
            example=document.golden(chunks[:some] if source is spec else signal[None], recorded),
            tolerance=tolerance,
            max_batch=max_batch,
            notes="int8: weights per channel, activations per row" if int8 else "",
            parameters=parameters,
            receptive_field=getattr(module, "receptive_field", None),
        )

    describe(spec, 0.0)  # refuses an invalid description before the slow part
    limit = info.get("cell_limit")
    model = graph(module, (spec,), int8=int8, cell_limit=limit)
    with draft_of(target) as draft:
        longer = None
        write(draft, model, describe(spec, 0.0))
        reached, _, _ = worst(onnx_chunked(Model.load(draft), signal), whole)
        write(draft, model, describe(spec, float(f"{reached:.2g}") if np.isfinite(reached) else 1e9))
        if int8:
            longer = draft.with_name(f"whole-{target.name}")
            write(longer, graph(module, (once,), int8=True, cell_limit=limit), describe(once, 0.0))
        verdict = verify(module, draft, signal, longer=longer, seed=seed, long_chunks=long_chunks)
        if not verdict.ok:
            raise RefusedError(verdict)
    return Verdict(target, seed, verdict.findings)


def _states(module: StreamingModule) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The states: name -> dtype, and shape without batch."""
    start = {name: tensor.numpy() for name, tensor in sorted(module.initial_state(1).items())}
    return {name: (array.dtype.name, array.shape[1:]) for name, array in start.items()}
