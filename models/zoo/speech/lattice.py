"""The transducer's loss (Graves 2012, "Sequence transduction with recurrent neural networks", arXiv 1211.3711).

A recording of T frames with U symbols is a path through a lattice of T by U + 1 nodes: from each node the blank leads
to the next frame, the next symbol to the next node of the same frame. The loss is the negative logarithm of the sum
over all paths from (0, 0) to (T - 1, U) and its blank.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["forward_variables", "transducer_loss"]

#: Log-probability of impossible paths; finite, so that gradients are finite.
NEVER = -1e30


def transducer_loss(
    log_probs: Tensor, symbols: Tensor, frames: Tensor, lengths: Tensor, blank: int = 0, hurry: float = 0.0
) -> Tensor:
    """Negative log-likelihood [B] in nats.

    ``log_probs`` [B, T, U + 1, V]: of each token after the first u symbols. ``symbols`` [B, U] int64; ``frames`` [B]
    and ``lengths`` [B]: the numbers of frames and of symbols of each recording. ``hurry``: the gradient of symbols is
    larger by this share (FastEmit, Yu et al. 2021, arXiv 2010.11148). The likelihood alone may spread a symbol over all
    frames of a pause, and a greedy search would then find it in none.
    """
    blanks = log_probs[..., blank]  # [B, T, U + 1]
    steps = symbols[:, None, :, None].expand(-1, log_probs.shape[1], -1, 1)
    emits = log_probs[:, :, :-1].gather(3, steps)[..., 0]  # [B, T, U]
    if hurry:
        emits = emits + hurry * (emits - emits.detach())
    alphas = forward_variables(blanks, emits)  # [T + U, B, U + 1]
    rows = torch.arange(len(frames), device=frames.device)
    last = alphas[frames - 1 + lengths, rows, lengths]
    return -(last + blanks[rows, frames - 1, lengths])


def forward_variables(blanks: Tensor, emits: Tensor) -> Tensor:
    """log alpha [T + U, B, U + 1] by diagonals: row d has the nodes (d - u, u), which depend only on row d - 1. So
    there are T + U steps, each over all nodes of a diagonal. ``blanks`` [B, T, U + 1], ``emits`` [B, T, U].
    """
    batch, frames, width = blanks.shape
    nothing = blanks.new_full((batch, frames, 1), NEVER)
    right, up = skewed(blanks), skewed(torch.cat([nothing, emits], 2))  # up[d, :, u]: from u - 1 to u, in frame d - u
    alpha = blanks.new_full((batch, width), NEVER)
    alpha = torch.cat([torch.zeros_like(alpha[:, :1]), alpha[:, 1:]], 1)
    out = [alpha]
    for d in range(1, frames + width - 1):
        stay = alpha + right[d - 1]
        climb = torch.cat([nothing[:, 0], alpha[:, :-1]], 1) + up[d]
        alpha = torch.logaddexp(stay.clamp(min=NEVER), climb.clamp(min=NEVER))
        out.append(alpha)
    return torch.stack(out)


def skewed(x: Tensor) -> Tensor:
    """[B, T, W] -> [T + W - 1, B, W]: element (t, u) is in row t + u; places outside of the lattice are ``NEVER``."""
    batch, frames, width = x.shape
    padded = torch.nn.functional.pad(x.transpose(1, 2), (0, width), value=NEVER)  # [B, W, T + W]
    flat = padded.reshape(batch, -1)[:, : width * (frames + width - 1)]
    return flat.view(batch, width, frames + width - 1).permute(2, 0, 1)
