"""The laws that every streaming layer obeys, as functions for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.layers import State, Streaming


def settle(module: Streaming, seed: int = 0) -> Streaming:
    """Evaluation mode, with batch statistics that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.eval()


@torch.no_grad()
def chunked(layer: Streaming, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, State]:
    """The layer over x in chunks of the given lengths (of axis 1)."""
    state, out = layer.initial_state(x.shape[0]), []
    for piece in x.split(list(lengths), dim=1):
        y, state = layer(piece, state)
        out.append(y)
    return torch.cat(out, dim=1), state


def assert_close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    """Within ``tolerance`` of the larger magnitude of b (the chunk law's measure)."""
    a, b = a.detach(), b.detach()
    scale = float(b.abs().max().clamp(min=1.0))
    assert float((a - b).abs().max()) <= tolerance * scale


def check_state(layer: Streaming, x: Tensor) -> None:
    """Flat, zero, batch on axis 0, and what comes back has the same names and shapes."""
    batch = x.shape[0]
    state = layer.initial_state(batch)
    with torch.no_grad():
        _, after = layer(x, state)
    assert set(after) == set(state)
    for name, value in state.items():
        assert value.shape[0] == batch, name
        assert not value.any(), f"{name} does not start from zero bytes"
        assert after[name].shape == value.shape, name
        assert after[name].dtype == value.dtype, name
    pointers = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(pointers)) == len(pointers), "two states share memory: an exporter would take them for one input"


@torch.no_grad()
def check_company(layer: Streaming, x: Tensor, poison: Callable[[Tensor], Tensor]) -> None:
    """Row 0 is the same alone, and beside a row that is poisoned."""
    alone, _ = chunked(layer, x[:1], [x.shape[1]])
    both, _ = chunked(layer, torch.cat([x[:1], poison(x[1:2])]), [x.shape[1]])
    assert_close(both[:1], alone, 1e-5)


def measured_field(layer: Streaming, x: Tensor) -> int:
    """Input steps from the first to the last that the last output's gradient reaches."""
    x = x.clone().requires_grad_()
    y, _ = layer(x, layer.initial_state(x.shape[0]))
    y[:, -1].square().sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=[0, *range(2, x.grad.ndim)]).nonzero().flatten()
    return x.shape[1] - int(reached.min())
