"""Adapts a module to the contract: batch on axis 0, time on axis 1 of inputs and outputs, zero initial states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export.look import ModuleSignature

__all__ = ["STARTED", "Adapted"]

#: An extra state of modules whose own states do not start as zeros: whether the stream has begun.
STARTED = "stream.started"
#: Scale of 16-bit samples to [-1, 1).
PCM_SCALE = 1 / 32768

State = dict[str, Tensor]


class Adapted(nn.Module):
    """The module as a :class:`export.trace.StreamingModule`.

    ``pcm``: the first input is 16-bit samples, which are scaled. ``probabilities``: the function that turns the first
    output's last axis into probabilities, ``softmax`` or ``sigmoid``. Integer inputs are clipped to their limits.

    ``whole``: a call takes any number of chunks. ``untimed``: outputs without a time axis. ``folded``: states whose
    initial value is not zero.
    """

    def __init__(self, found: ModuleSignature, *, pcm: bool, probabilities: str | None = None) -> None:
        super().__init__()
        forward, axes = found.forward, found.axes
        self.module = forward.module
        self._forward, self._axes, self._pcm = forward, axes, pcm
        self._limits, self._probabilities = found.limits, probabilities
        layouts = zip(axes.states, found.start, strict=True)
        self._start = [layout.outward(tensor)[:1].clone() for layout, tensor in layouts]
        self.folded = [n for n, start in zip(forward.state_names, self._start, strict=True) if start.count_nonzero()]
        self.whole = axes.whole
        self.untimed = {n for n, layout in zip(forward.output_names, axes.outputs, strict=True) if layout.time is None}

    def initial_state(self, batch: int) -> State:
        """Zeros by state, [batch, ...]; the graph replaces them by the module's initial values."""
        names = self._forward.state_names
        state = {n: torch.zeros((batch, *s.shape[1:]), dtype=s.dtype) for n, s in zip(names, self._start, strict=True)}
        return {**state, STARTED: torch.zeros((batch, 1), dtype=torch.bool)} if self.folded else state

    def forward(self, chunk: Tensor | Mapping[str, Tensor], state: State) -> tuple[State, State]:
        """Outputs and new states by name. ``chunk`` [batch, steps, ...]; several inputs and conditions: by name."""
        names = (*self._forward.inputs, *self._forward.conditions)
        given = dict(zip(names, (chunk,), strict=True)) if isinstance(chunk, Tensor) else dict(chunk)
        inward = {
            name: layout.inward(self._taken(name, given[name]))
            for name, layout in zip(names, (*self._axes.inputs, *self._axes.conditions), strict=True)
        }
        outputs, new = self._forward(inward, self._states(state))
        back: State = {}
        for name, layout, output in zip(self._forward.output_names, self._axes.outputs, outputs, strict=True):
            back[name] = layout.outward(output)
        if self._probabilities is not None:
            first = self._forward.output_names[0]
            back[first] = back[first].softmax(-1) if self._probabilities == "softmax" else back[first].sigmoid()
        after = {
            name: layout.outward(tensor)
            for name, layout, tensor in zip(self._forward.state_names, self._axes.states, new, strict=True)
        }
        return back, {**after, STARTED: torch.ones_like(state[STARTED])} if self.folded else after

    def _taken(self, name: str, tensor: Tensor) -> Tensor:
        """An input clipped to its limits, and scaled if it is PCM."""
        if name in self._limits:
            tensor = tensor.clamp(*self._limits[name])
        return tensor.float() * PCM_SCALE if self._pcm and name == self._forward.inputs[0] else tensor

    def _states(self, state: State) -> list[Tensor]:
        """The module's states; for streams that have not begun, the initial values."""
        taken = []
        for name, layout, start in zip(self._forward.state_names, self._axes.states, self._start, strict=True):
            tensor = state[name]
            if name in self.folded:
                begun = state[STARTED].reshape(-1, *[1] * (tensor.dim() - 1))
                tensor = torch.where(begun, tensor, start)
            taken.append(layout.inward(tensor).contiguous())
        return taken
