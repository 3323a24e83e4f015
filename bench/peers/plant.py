"""A typical model of rows: two LSTM layers of 128 over 8 channels, with states as input and output tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bench.peers import torchscript
from bench.peers.shapes import CHANNELS, LAYERS, WIDTH


class Plant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(CHANNELS, WIDTH, LAYERS, batch_first=True), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` [B, 1, 8]; ``h``, ``c`` [2, B, 128]."""
        y, (h, c) = self.cell(x, (h, c))
        return self.out(y), h, c


def write(path: Path) -> Path:
    torch.manual_seed(0)
    state = torch.zeros(LAYERS, 1, WIDTH)
    given = {"x": torch.zeros(1, 1, CHANNELS), "h": state, "c": state}
    back = dict.fromkeys(("h", "c", "h_next", "c_next"), 1)
    torchscript.write(Plant(), path, given, ["y", "h_next", "c_next"], back)
    return path
