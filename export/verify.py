"""The judge's PyTorch side: PyTorch whole = PyTorch chunked = ONNX chunked, on a longer signal than the golden example.

Checks without PyTorch are in :mod:`streamer.contract.judge`; :func:`verify` runs both, before a file is written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.trace import StreamingModule, named
from streamer.contract.judge import CHUNK_TOLERANCE, QUANTISED_LIMIT, Finding, Verdict
from streamer.contract.probe import Array, Arrays, run
from streamer.contract.probe import worst as compare
from streamer.engine.model import Model
from streamer.engine.proof import judge_file

__all__ = ["QUANTISED_CHUNK_TOLERANCE", "onnx_chunked", "torch_splits", "torch_whole", "verify"]

#: Tolerance of ONNX whole against ONNX chunked in a quantised graph, where a last-bit difference between a long and a
#: short product of the float32 front end may round to the next integer. float32 files meet ``CHUNK_TOLERANCE``.
QUANTISED_CHUNK_TOLERANCE = 1e-2


@torch.no_grad()
def torch_whole(module: StreamingModule, signal: Array) -> Arrays:
    """Every output [1, T, ...] of ``signal`` [1, N, ...] in one call from the start of a stream."""
    output, _ = module(torch.from_numpy(signal), module.initial_state(len(signal)))
    return {name: tensor.numpy() for name, tensor in named(output).items()}


@torch.no_grad()
def torch_splits(module: StreamingModule, signal: Array, lengths: list[int]) -> Arrays:
    """As :func:`torch_whole`, but in several calls with ``lengths`` (samples)."""
    state, parts = module.initial_state(len(signal)), []
    for piece in torch.split(torch.from_numpy(signal), lengths, dim=1):
        output, state = module(piece, state)
        parts.append(named(output))
    return {name: torch.cat([part[name] for part in parts], dim=1).numpy() for name in parts[0]}


def onnx_chunked(model: Model, signal: Array) -> Arrays:
    """Every output [1, T, ...] of the file for ``signal`` [1, N, ...], chunk by chunk; N is a whole number of
    chunks."""
    pieces = np.stack(np.split(signal, signal.shape[1] // model.manifest.chunk, axis=1))
    outputs, _ = run(model, pieces)  # [n, 1, steps, ...]
    return {name: np.concatenate(list(array), axis=1) for name, array in outputs.items()}


def verify(
    module: StreamingModule,
    path: Path,
    signal: Array,
    *,
    longer: Path | None = None,
    seed: int = 0,
    long_chunks: int = 2000,
) -> Verdict:
    """Check every law on ``path``, and compare it with its module on ``signal`` [1, N], a whole number of chunks.

    ``longer``: a quantised model's file for the whole ``signal`` in one call, since PyTorch is no exact reference for
    it. ``long_chunks``: chunks of the judge's long run.
    """
    model = Model.load(path)
    rng = np.random.default_rng(seed)
    hop = int(getattr(module, "block", model.manifest.hop))  # a module may take blocks of several steps
    whole = torch_whole(module, signal)
    findings = []
    steps = signal.shape[1] // hop
    for pieces, count in (("a few pieces", 3), ("many pieces", steps // 2)):
        cuts = np.sort(rng.choice(np.arange(1, steps), size=count, replace=False))
        lengths = (np.diff([0, *cuts, steps]) * hop).tolist()
        worst, _, _ = compare(torch_splits(module, signal, lengths), whole)
        findings.append(_finding(f"PyTorch whole = PyTorch in {pieces}", worst, CHUNK_TOLERANCE))
    chunked = onnx_chunked(model, signal)
    worst, _, _ = compare(chunked, whole)
    if longer is None:
        findings.append(_finding("PyTorch whole = ONNX chunked", worst, CHUNK_TOLERANCE))
    else:
        findings.append(_finding("PyTorch float32 near ONNX int8", worst, QUANTISED_LIMIT))
        once = onnx_chunked(Model.load(longer), signal)
        findings.append(
            _finding("ONNX int8 whole = ONNX int8 chunked", compare(chunked, once)[0], QUANTISED_CHUNK_TOLERANCE)
        )
    rest = judge_file(path, seed=seed, long_chunks=long_chunks)
    return Verdict(path, seed, (*findings, *rest.findings))


def _finding(check: str, worst: float, tolerance: float) -> Finding:
    return Finding("chunk", check, worst <= tolerance, worst, tolerance)
