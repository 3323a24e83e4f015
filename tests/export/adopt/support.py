"""What the tests of adoption share: graphs as other people's exporters write them, and adopted files put to work.

The graphs come from PyTorch's TorchScript exporter, because most public models did: it is the one that writes a batch
of 1 into Reshape targets.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.adopt.build import adopt
from export.adopt.report import Report
from export.adopt.settings import AdoptSettings, read_settings
from streamer.contract.judge import Verdict
from streamer.contract.manifest import Manifest
from streamer.contract.probe import deviation, run
from streamer.engine.model import Model
from tests.engine.support import Events, feed, running

Array = NDArray[Any]
Arrays = dict[str, Array]

LAWS = {"contract", "chunk", "company", "sleep", "endurance"}
#: Between the adopted file and the original under its host's code, relative to a step's largest value.
TOLERANCE = 1e-4


def exported(
    module: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    scripted: bool = False,
    folded: bool = True,
    opset: int = 17,
) -> Path:
    """``inputs``: examples, in the order of ``forward``. ``free``: of some tensors the axes whose size is open.

    ``scripted``: what Python decides in ``forward`` is decided in the graph, too. Not ``folded``: shapes that are known
    are worked out in the graph, as in a file that nobody has simplified.
    """
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: deprecated, and constants that it traces
        torch.onnx.export(
            torch.jit.script(module.eval()) if scripted else module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dict(free or {}),
            opset_version=opset,
            do_constant_folding=folded,
            dynamo=False,
        )
    if metadata:
        proto = onnx.load(path)
        onnx.helper.set_model_props(proto, dict(metadata))
        onnx.save(proto, path)
    return path


def written(path: Path, graph: str, opset: int = 17, imports: str = "") -> Path:
    """``graph`` in ONNX's own text: ``(float[b, 1, 4] x, ...) => (...) { y = Tanh(x) ... }``."""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{imports}]>\ng {graph}'), path)
    return path


def settings(folder: Path, toml: str) -> AdoptSettings:
    """As a user has them: a file."""
    path = folder / "adopt.toml"
    path.write_text(toml, "utf-8")
    return read_settings(path)


@dataclass
class Adoption:
    path: Path
    lines: list[str]
    verdict: Verdict
    model: Model

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest

    @property
    def pairs(self) -> dict[str, str]:
        return {state.in_: state.out for state in self.manifest.states}

    def said(self, *parts: str) -> bool:
        """One line of the report has all of them."""
        return any(all(part in line for part in parts) for line in self.lines)


def adoption(source: Path, toml: str = "", *, max_batch: int = 3) -> Adoption:
    """Adopted and judged, by all five laws, into a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=source.parent))
    target, report, said = folder / source.name, Report(), settings(folder, toml)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    verdict = adopt(source, target, said, beside=source.parent, report=report, max_batch=max_batch, long_chunks=60)
    assert verdict.ok
    assert {finding.law for finding in verdict.findings} == LAWS
    return Adoption(target, report.lines, verdict, Model.load(target))


class Original:
    """The foreign file in the plainest loop; states and everything else are the caller's."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, **feeds: Array) -> Arrays:
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds), strict=True))


def sound(samples: int, seed: int) -> NDArray[np.int16]:
    """A gliding tone with noise and a pause."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples)
    tone = np.sin(2 * np.pi * (0.01 + 0.02 * seed) * time + 5 * np.sin(time / 900))
    level = 9000.0 * (np.sin(time / 1500 + seed) > -0.6)
    return np.asarray(level * tone + 300 * rng.standard_normal(samples), np.int16)


def together(model: Model, streams: Sequence[Array]) -> list[Arrays]:
    """Streams [n, ...] of whole chunks, run side by side: every output of each, its steps in one row."""
    chunk = model.manifest.chunk
    chunks = np.stack([stream.reshape(-1, 1, chunk, *stream.shape[1:])[:, 0] for stream in streams], axis=1)
    outputs, _ = run(model, chunks)
    return [
        {name: np.concatenate(list(column[:, row])) for name, column in outputs.items()} for row in range(len(streams))
    ]


def heard(path: Path, pcm: NDArray[np.int16], folder: Path, pieces: int = 700) -> Arrays:
    """A stream through registry, session, lanes and task, in pieces that are no chunks: every output, its steps in a
    row."""
    rate = Model.load(path).manifest.input.sample_rate
    assert rate is not None
    with running(path, folder=folder, capacity=4) as registry:
        sink = Events()
        session = registry.open(model=None, sample_rate=rate, sink=sink)
        feed(session, [pcm[at : at + pieces].tobytes() for at in range(0, len(pcm), pieces)])
        session.end()
        sink.wait("end")
    given = [event["outputs"] for event in sink.of("outputs")]
    return {name: np.concatenate([np.asarray(outputs[name]) for outputs in given]) for name in given[0]}


def far(got: Array, want: Array) -> float:
    """Relative, of the worst step."""
    assert got.shape == want.shape
    assert np.abs(want).max() > 0
    return deviation(np.asarray(got, np.float64), np.asarray(want, np.float64))
