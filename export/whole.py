"""PyTorch reference runs for comparison with the file: a whole sequence, if the module takes one, and pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from export.adapter import Adapted
from streamer.contract.probe import Arrays, Signal

__all__ = ["in_pieces", "whole"]


@torch.no_grad()
def whole(adapted: Adapted, signal: Signal) -> Arrays:
    """Every output [1, steps, ...] of ``signal``: from one call if the module takes any length, else call by call. For
    outputs without a time axis, a whole call is made for each prefix of the signal."""
    if not adapted.whole:
        return in_pieces(adapted, signal, [1] * len(signal))
    once = _call(adapted, signal, 0, len(signal), adapted.initial_state(1))[0]
    late = [name for name in once if name in adapted.untimed]
    if late:
        parts = [_call(adapted, signal, 0, end, adapted.initial_state(1))[0] for end in range(1, len(signal) + 1)]
        once |= {name: torch.cat([part[name] for part in parts], 1) for name in late}
    return {name: tensor.numpy() for name, tensor in once.items()}


@torch.no_grad()
def in_pieces(adapted: Adapted, signal: Signal, lengths: Sequence[int]) -> Arrays:
    """As :func:`whole`, in consecutive calls with ``lengths`` chunks, each from the state after the call before."""
    state, parts, at = adapted.initial_state(1), [], 0
    for length in lengths:
        outputs, state = _call(adapted, signal, at, at + length, state)
        parts.append(outputs)
        at += length
    return {name: torch.cat([part[name] for part in parts], 1).numpy() for name in parts[0]}


def _call(
    adapted: Adapted, signal: Signal, begin: int, end: int, state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One call with the chunks from ``begin`` to ``end``."""
    chunk = {
        name: torch.from_numpy(np.concatenate(list(array[begin:end]), axis=1)) for name, array in signal.inputs.items()
    }
    conditions = {name: torch.from_numpy(array) for name, array in signal.conditions.items()}
    outputs, new = adapted({**chunk, **conditions}, state)
    return outputs, new
