"""A checkpoint's module to a judged file: trace, fold, quantise, describe, judge, and only then put it in its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from export import document
from export.fold import fold, learned, name_batch_axis, strip
from export.int8 import quantise
from export.trace import Streaming, trace
from export.verify import onnx_chunked, torch_whole, verify
from streamer.engine.model import Model
from streamer.judge import Verdict, deviation, probe
from streamer.manifest import KEY, Input, Manifest

__all__ = ["RefusedError", "build", "graph"]

#: Chunks of the golden example inside the file, and of the longer signal that PyTorch and ONNX are compared on.
GOLDEN, SIGNAL = 4, 12


class RefusedError(Exception):
    """The file breaks a law and was not written; ``verdict`` says which."""

    def __init__(self, verdict: Verdict) -> None:
        findings = "\n".join(
            f"  {f.law}: {f.check}: {'' if f.measured is None else f'{f.measured:.2g} of {f.tolerance:.2g} '}{f.detail}"
            for f in verdict.refusals
        )
        super().__init__(f"the file breaks its laws and was not written:\n{findings}")
        self.verdict = verdict


def graph(module: Streaming, chunk: int, *, int8: bool = False) -> ir.Model:
    """The folded graph for chunks of ``chunk`` int16 samples, with nothing in it about where it was made."""
    assert isinstance(module, torch.nn.Module)
    model = trace(module, torch.zeros(1, chunk, dtype=torch.int16))
    weights = learned(model, {name for name, _ in module.named_parameters()})
    fold(model)
    if int8 and not quantise(model, weights):
        raise ValueError("nothing in this model can be quantised: no trained matrix or LSTM of a size that pays")
    name_batch_axis(model)
    strip(model)
    return model


def build(
    module: Streaming,
    info: Mapping[str, Any],
    target: Path,
    *,
    chunk_ms: float | None = None,
    int8: bool = False,
    max_batch: int = 64,
    seed: int = 0,
    long_chunks: int = 2000,
) -> Verdict:
    """Write ``target``. If a law is broken, raises :class:`RefusedError` and leaves what was there before."""
    chunk = document.chunk_length(info, chunk_ms)
    spec = Input(name="pcm", dtype="int16", chunk_shape=(chunk,), sample_rate=info["sample_rate"])
    chunks = probe(spec, SIGNAL, 1, np.random.default_rng(seed))  # [n, 1, chunk]
    signal = np.ascontiguousarray(np.moveaxis(chunks, 0, 1).reshape(1, -1))
    whole = torch_whole(module, signal)
    steps = whole.shape[1] // SIGNAL

    def describe(length: int, tolerance: float) -> Manifest:
        """For the file itself, and for the one with the whole signal as its only chunk."""
        count = signal.shape[1] // length
        some = min(GOLDEN, count)
        recorded = {"log_probs": whole[:, : some * length // info["hop"]]}
        return document.manifest(
            info,
            chunk=length,
            states=_states(module),
            outputs={"log_probs": (length // chunk * steps, *whole.shape[2:])},
            example=document.golden(chunks[:some] if length == chunk else signal[None], recorded),
            tolerance=tolerance,
            max_batch=max_batch,
            notes="int8: weights per channel, activations per row" if int8 else "",
        )

    describe(chunk, 0.0)  # what does not fit the contract is told now, not after the slow part
    model = graph(module, chunk, int8=int8)
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is a rename: whoever looks sees the old file or a judged one
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        draft, longer = Path(folder) / target.name, None
        _write(draft, model, describe(chunk, 0.0))
        reached = deviation(onnx_chunked(Model.load(draft), signal), whole)
        _write(draft, model, describe(chunk, float(f"{reached:.2g}") if np.isfinite(reached) else 1e9))
        if int8:
            longer = Path(folder) / f"whole-{target.name}"
            _write(longer, graph(module, signal.shape[1], int8=True), describe(signal.shape[1], 0.0))
        verdict = verify(module, draft, signal, longer=longer, seed=seed, long_chunks=long_chunks)
        if not verdict.ok:
            raise RefusedError(verdict)
        os.replace(draft, target)
    return Verdict(target, seed, verdict.findings)


def _states(module: Streaming) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape[1:]) for name, tensor in sorted(module.initial_state(1).items())}


def _write(path: Path, model: ir.Model, manifest: Manifest) -> None:
    model.metadata_props[KEY] = manifest.to_json()
    model.producer_name, model.producer_version = "streamer", "1"
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
