"""The contract of every streaming layer: state in, state out, batch on axis 0, one forward for whole and chunk.

A state is a flat ``dict[str, Tensor]``; the keys of an inner layer's state have its name and a dot in front. Every
stream starts from zeros: a layer whose initial state is not zero stores the offset from it. A module never holds a
stream's state.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

State = dict[str, Tensor]


class Streaming(nn.Module):
    """A causal layer ``forward(x, state) -> (y, state)`` with ``x`` [B, T, ...], ``y`` [B, T / stride, ...].

    ``stride``: input steps per output step; ``T`` must be a multiple of it.
    ``receptive_field``: input steps that one output step depends on, ``None`` if unlimited (recurrence).
    ``latency``: input steps by which an output is delayed for look-ahead; 0 in a causal layer.
    """

    stride: int = 1
    receptive_field: int | None = 1
    latency: int = 0

    def initial_state(self, batch: int) -> State:
        """The state of ``batch`` new streams: all zeros, batch on axis 0."""
        return {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError


def inner(state: Mapping[str, Tensor], name: str) -> State:
    """The state of the inner layer ``name``, without the prefix."""
    prefix = name + "."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def outer(state: Mapping[str, Tensor], name: str) -> State:
    """The inverse of :func:`inner`: every key with the prefix ``name.``."""
    return {f"{name}.{key}": value for key, value in state.items()}


def chain_receptive_field(layers: list[tuple[int | None, int]]) -> int | None:
    """Receptive field, in input steps, of layers one after another, each given as (receptive field, stride)."""
    total, stride = 1, 1
    for field, step in layers:
        if field is None:
            return None
        total += (field - 1) * stride
        stride *= step
    return total


class Chain(Streaming):
    """Layers one after another, each under its own name."""

    def __init__(self, layers: Mapping[str, Streaming]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(dict(layers))
        parts = [(layer.receptive_field, layer.stride) for layer in layers.values()]
        self.receptive_field = chain_receptive_field(parts)
        self.stride, self.latency = 1, 0
        for layer in layers.values():
            self.latency += layer.latency * self.stride
            self.stride *= layer.stride

    def initial_state(self, batch: int) -> State:
        state: State = {}
        for name, layer in self.layers.items():
            state |= outer(layer.initial_state(batch), name)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        new: State = {}
        for name, layer in self.layers.items():
            x, part = layer(x, inner(state, name))
            new |= outer(part, name)
        return x, new
