"""A module as the file has it: batch on axis 0, time on axis 1 of inputs and outputs, states that start as zeros."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export.look import ModuleSignature

__all__ = ["STARTED", "Adapted"]

#: The state that says a stream has begun, where a module's own states do not start as zeros.
STARTED = "stream.started"
#: 16-bit samples as the numbers in [-1, 1) that a module for sound takes.
PCM_SCALE = 1 / 32768

State = dict[str, Tensor]


class Adapted(nn.Module):
    """Keeps the contract of :class:`export.trace.StreamingModule`.

    ``pcm``: the first input comes as 16-bit samples and is scaled. ``probabilities``: what makes them of the first
    output's last axis, ``softmax`` or ``sigmoid``. What is outside an integer input's limits is taken for the nearest
    inside.

    ``whole``: it takes any number of chunks a call; ``untimed``: outputs that a call has once, whatever its length;
    ``folded``: states whose start is not zero.
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
        """All zeros; what a state of the module starts as is put in its place inside."""
        names = self._forward.state_names
        state = {n: torch.zeros((batch, *s.shape[1:]), dtype=s.dtype) for n, s in zip(names, self._start, strict=True)}
        return {**state, STARTED: torch.zeros((batch, 1), dtype=torch.bool)} if self.folded else state

    def forward(self, chunk: Tensor | Mapping[str, Tensor], state: State) -> tuple[State, State]:
        """``chunk`` [batch, steps, ...]; of several inputs and conditions by name."""
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
        if name in self._limits:
            tensor = tensor.clamp(*self._limits[name])
        return tensor.float() * PCM_SCALE if self._pcm and name == self._forward.inputs[0] else tensor

    def _states(self, state: State) -> list[Tensor]:
        """As the module takes them: those of a stream that has not begun are its own start."""
        taken = []
        for name, layout, start in zip(self._forward.state_names, self._axes.states, self._start, strict=True):
            tensor = state[name]
            if name in self.folded:
                begun = state[STARTED].reshape(-1, *[1] * (tensor.dim() - 1))
                tensor = torch.where(begun, tensor, start)
            taken.append(layout.inward(tensor).contiguous())
        return taken
