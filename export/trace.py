"""Traces a streaming PyTorch module to an ONNX graph: states as named inputs and outputs, only the batch axis free.

The module keeps the contract of ``models/``: ``initial_state(batch) -> dict[str, Tensor]`` (batch on axis 0) and
``module(chunk, state) -> (tensor or dict of tensors, state)``. A state ``encoder.0.h`` becomes the graph's input
``encoder.0.h`` and its output ``encoder.0.h.next``, so that pairs are found by name.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Protocol

import onnx_ir as ir
import torch
from torch import Tensor, nn

__all__ = ["OPSET", "StreamingModule", "named", "trace"]

#: The exporter writes opset 18 and above without converting; both it and onnxruntime support 20 well.
OPSET = 20

State = dict[str, Tensor]


class StreamingModule(Protocol):
    """A module that can be exported: its state is passed in and returned. With several inputs the chunk is a dictionary
    by input name."""

    def initial_state(self, batch: int) -> State: ...

    def __call__(self, chunk: Any, state: State) -> tuple[Any, State]: ...


class _Flat(nn.Module):
    """Flattens inputs and states to positional tensors, since the exporter binds by position."""

    def __init__(self, module: StreamingModule, inputs: list[str], states: list[str]) -> None:
        super().__init__()
        self.module = module
        self.inputs, self.states = inputs, states

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.inputs)
        state = dict(zip(self.states, tensors[count:], strict=True))
        chunk = tensors[0] if count == 1 else dict(zip(self.inputs, tensors[:count], strict=True))
        output, new = self.module(chunk, state)
        return (*named(output).values(), *(new[name] for name in self.states))


def named(output: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A module's outputs by name; a single tensor gets the name ``log_probs``."""
    return dict(output) if isinstance(output, Mapping) else {"log_probs": output}


def trace(module: StreamingModule, inputs: Mapping[str, Tensor], *, free: bool = True) -> ir.Model:
    """The graph of one call of ``module`` on chunks shaped like ``inputs`` [1, ...]; weights stay unchanged.

    ``free``: the batch is a dynamic axis; else it is 1. Raises ``ValueError`` if the module returns other states than
    it starts with, or states of another shape or dtype, or if a state does not start as zeros.
    """
    assert isinstance(module, nn.Module)
    module.eval()
    count = 2 if free else 1
    # tensors that share memory would be traced as views of one another
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in module.initial_state(count).items()
    }
    names = sorted(state)
    example = {name: torch.cat([tensor] * count) for name, tensor in inputs.items()}
    flat = _Flat(module, list(inputs), names).eval()
    tensors = (*example.values(), *(state[name] for name in names))
    with torch.no_grad():
        output, new = module(tensors[0] if len(example) == 1 else example, state)
    _same_states(state, new)
    batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in tensors)
    with _silent(), torch.no_grad():
        program = torch.onnx.export(
            flat,
            tensors,
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            input_names=[*inputs, *names],
            output_names=[*named(output), *(f"{name}.next" for name in names)],
            dynamic_shapes=(batch,) if free else None,
        )
    assert program is not None
    return program.model


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the exporter and its libraries, which print a whole graph when they fail; the error is raised anyway."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _same_states(old: State, new: State) -> None:
    """Raise ``ValueError`` unless the states have the same names, shapes and dtypes, and start as zeros."""
    if set(old) != set(new):
        raise ValueError(f"the module starts with states {sorted(old)} and returns {sorted(new)}")
    for name, tensor in old.items():
        if tensor.shape != new[name].shape or tensor.dtype != new[name].dtype:
            raise ValueError(
                f"state {name} starts as {tensor.dtype} {tuple(tensor.shape)} and comes back as "
                f"{new[name].dtype} {tuple(new[name].shape)}"
            )
        if torch.count_nonzero(tensor):
            raise ValueError(f"state {name} does not start as zeros: fold its start into the module")
