"""The contract of every streaming layer: state in, state out, batch on axis 0, one forward for whole and chunk.

A state is a flat ``dict[str, Tensor]``; the state of a layer inside another is nested by name, joined with a dot. Every
stream starts from zeros: a layer that wants to start elsewhere folds that start into its own arithmetic. Nothing that
belongs to a stream is ever kept on a module.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

State = dict[str, Tensor]


class Streaming(nn.Module):
    """A causal layer ``forward(x, state) -> (y, state)`` with ``x`` [B, T, ...], ``y`` [B, T / stride, ...].

    ``stride``: input steps per output step; ``T`` must be a multiple of it.
    ``receptive_field``: input steps that one output step depends on, ``None`` where the memory has no end (recurrence).
    ``latency``: input steps by which an output is held back for look-ahead; 0 in a causal layer.
    """

    stride: int = 1
    receptive_field: int | None = 1
    latency: int = 0

    def initial_state(self, batch: int) -> State:
        """The start of ``batch`` streams: all zeros, batch on axis 0."""
        return {}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError


def inner(state: Mapping[str, Tensor], name: str) -> State:
    """The part of a state that belongs to the layer called ``name``."""
    prefix = name + "."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def outer(state: Mapping[str, Tensor], name: str) -> State:
    """The reverse of :func:`inner`: ``name.`` before every key."""
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
