"""Exports graphs with PyTorch's older exporter, as most public models were."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


def write(
    module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str], batch: Mapping[str, int]
) -> None:
    """Export ``module`` to ``path``. ``batch``: the batch axis of tensors, by name; by default the first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: deprecated, and constants that it traces
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {batch.get(name, 0): "B"} for name in (*inputs, *outputs)},
            opset_version=17,
            dynamo=False,
        )
