"""Samples per second of the exported WaveNet generator with cached convolutions, compared with two alternatives.

``naive``: an ONNX graph whose input is the whole receptive field for every sample; only the last frame's head is
computed, and drawing the sample is not counted. ``PyTorch``: the same module with the same caches, eager, in inference
mode. One thread each, in turns, the best of several rounds. Speed does not depend on weights; without ``--checkpoint``
PyTorch and naive have random ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from bench.report import finish
from models.training import checkpoint
from models.zoo.generate.wavenet_generator import WaveNetConfig, WaveNetGenerator
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.tasks.generate import Generate

ONE, MANY = "cached, one file", "cached, one file, 16 streams"


class Last(nn.Module):
    """Tokens [B, R, width], labels [B, R], since [B, R] -> logits of the last frame [B, 1, width, V]."""

    def __init__(self, model: WaveNetGenerator) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, labels: Tensor, since: Tensor) -> Tensor:
        return self.model.teach(tokens, labels, since, last=True)


def naive(module: WaveNetGenerator, batches: Sequence[int]) -> list[Callable[[], object]]:
    """For each batch size a function that computes one sample of each stream."""
    frames, width = module.receptive_field or 1, module.config.width
    example = tuple(torch.zeros(shape, dtype=torch.int64) for shape in ((2, frames, width), (2, frames), (2, frames)))
    free = ({0: torch.export.Dim.DYNAMIC},) * 3
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "naive.onnx"
        torch.onnx.export(
            Last(module).eval(), example, str(path), dynamo=True, verbose=False, opset_version=20, external_data=False,
            dynamic_shapes=free,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def call(batch: int) -> Callable[[], object]:
        feeds = {name: np.repeat(array[:1].numpy(), batch, 0) for name, array in zip(names, example, strict=True)}
        return lambda: session.run(None, feeds)

    return [call(batch) for batch in batches]


def cached(model: Model, batch: int) -> Callable[[], object]:
    task, manifest = Generate(model.manifest), model.manifest
    request = task.open({}).request
    chunk = np.stack([task.controls(request, 1, manifest.chunk)] * batch)
    stepper = Stepper(model, batch)
    return lambda: stepper.step(chunk)


def eager(module: WaveNetGenerator, steps: int, batch: int) -> Callable[[], object]:
    controls = torch.zeros(batch, steps, len(module.columns.limits()), dtype=torch.int32)
    controls[:, :, 1] = 1000
    state = module.initial_state(batch)

    @torch.inference_mode()
    def run() -> None:
        _, new = module(controls, state)
        state.update(new)

    return run


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="spoken-digits", help="name or path")
    parser.add_argument("--checkpoint", type=Path, help="of the same model, for PyTorch and naive")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = Model.load(resolve(given.model))
    module = checkpoint.load(given.checkpoint)[0] if given.checkpoint else WaveNetGenerator(WaveNetConfig()).eval()
    rate, width = model.manifest.options["sample_rate"], module.config.width
    call = model.manifest.chunk * width
    plain = naive(module, (1, 16))
    calls = {
        ONE: (cached(model, 1), call),
        MANY: (cached(model, 16), 16 * call),
        "PyTorch, same caches": (eager(module, model.manifest.chunk, 1), call),
        "PyTorch, same caches, 16 streams": (eager(module, model.manifest.chunk, 16), 16 * call),
        "naive, whole receptive field": (plain[0], 1),
        "naive, whole receptive field, 16 streams": (plain[1], 16),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(given.rounds):
        for name, (run, _) in calls.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    speed = {name: samples / best[name] for name, (_, samples) in calls.items()}
    finish(
        "generate",
        {"model": given.model, "samples_per_call": call, "samples_per_second": speed},
        columns=("way", "samples/s", "times real time", "cached is faster by"),
        rows=[
            (name, f"{s:,.0f}", f"{s / rate:.2f}", f"{speed[MANY if '16' in name else ONE] / s:.1f}")
            for name, s in speed.items()
        ],
        as_json=given.json,
    )
    return 0
