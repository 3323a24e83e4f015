"""A denoiser: a small recurrent network that predicts a complex mask for each bin of a short-time spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import RecurrentStack, RunningNorm, State, Streaming, inner, outer
from models.layers.config import Config
from models.layers.spectrum import Analysis, Synthesis

#: Added to a bin's energy before the logarithm: just below the noise of a real recording.
FLOOR = 1e-6


@dataclass(frozen=True)
class MaskingConfig(Config):
    sample_rate: int = 16000
    size: int = 512  # samples of the window, twice the delay
    hidden: int = 96
    layers: int = 2
    cell: str = "gru"
    taps: int = 3  # frames that an output frame is computed from
    low: int = 112  # bins, from 0 Hz to 3.5 kHz, in which more than one frame is used


class Masking(Streaming):
    """``forward(pcm int16 [B, N], state) -> ({"audio": float32 [B, N / hop, hop]}, state)``: samples in blocks of a
    hop, full scale 1, ``latency`` samples late.

    Each bin is multiplied by a complex number (Williamson, Wang and Wang 2016) whose parts are between -1 and 1. In the
    lowest bins the frames before are multiplied, too, and added (Mack and Habets 2020): several frames resolve
    harmonics for which one window is too short.
    """

    receptive_field = None

    def __init__(self, config: MaskingConfig) -> None:
        super().__init__()
        self.config = c = config
        self.analysis, self.synthesis = Analysis(c.size), Synthesis(c.size)
        bins = self.analysis.bins
        self.hop = self.stride = self.latency = self.analysis.hop
        self.norm = RunningNorm(bins)
        self.enter = nn.Linear(bins, c.hidden)
        self.body = RecurrentStack(c.cell, c.hidden, c.hidden, c.layers)
        self.head = nn.Linear(c.hidden, 2 * bins)
        self.low = c.low
        self.late = nn.Linear(c.hidden, 2 * self.low * (c.taps - 1))
        with torch.no_grad():  # the initial mask is about half of the current frame
            self.head.bias.copy_(torch.cat([torch.full((bins,), 0.5), torch.zeros(bins)]))
            self.late.weight.zero_()
            self.late.bias.zero_()

    def initial_state(self, batch: int) -> State:
        past = torch.zeros(batch, self.config.taps - 1, 2, self.low, device=self.head.weight.device)
        state: State = {"past": past}
        for name in ("analysis", "norm", "body", "synthesis"):
            state |= outer(getattr(self, name).initial_state(batch), name)
        return state

    def forward(self, pcm: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        spectrum, analysis = self.analysis(pcm.to(torch.float32) / 32768.0, inner(state, "analysis"))
        features, norm = self.norm(energies(spectrum), inner(state, "norm"))
        hidden, body = self.body(self.enter(features).relu(), inner(state, "body"))
        masked = product(spectrum, self.head(hidden).tanh().unflatten(2, (2, self.analysis.bins)))
        steps, taps = spectrum.shape[1], self.config.taps
        whole = torch.cat([state["past"], spectrum[..., : self.low]], dim=1)  # [B, taps - 1 + T, 2, low]
        weights = self.late(hidden).tanh().unflatten(2, (taps - 1, 2, self.low))
        low = masked[..., : self.low]
        for i in range(taps - 1):
            low = low + product(whole[:, i : i + steps], weights[:, :, i])
        masked = torch.cat([low, masked[..., self.low :]], dim=3)
        audio, synthesis = self.synthesis(masked, inner(state, "synthesis"))
        parts = {"analysis": analysis, "norm": norm, "body": body, "synthesis": synthesis}
        new: State = {"past": whole[:, steps:]}
        for name, part in parts.items():
            new |= outer(part, name)
        return {"audio": audio.view(-1, steps, self.hop)}, new

    @torch.no_grad()
    def normalise(self, pcm: Tensor) -> None:
        """Set the normaliser's constants from the energies of ``pcm`` [B, N] int16."""
        spectrum, _ = self.analysis(pcm.to(torch.float32) / 32768.0, self.analysis.initial_state(len(pcm)))
        self.norm.set_constants(energies(spectrum))


def product(x: Tensor, y: Tensor) -> Tensor:
    """The product of complex numbers [B, T, 2, F]."""
    a, b, c, d = x[:, :, 0], x[:, :, 1], y[:, :, 0], y[:, :, 1]
    return torch.stack([a * c - b * d, a * d + b * c], dim=2)


def energies(spectrum: Tensor) -> Tensor:
    """Log energies: [B, T, 2, bins] -> [B, T, bins]."""
    return (spectrum.square().sum(2) + FLOOR).log()
