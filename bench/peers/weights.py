"""A recogniser with random weights and T-one's signature, which both sherpa-onnx and ``export.adopt`` read.

Four LSTM layers of 512 over 30 ms frames of raw samples, CTC over the letters: 8.5 million parameters. It outputs some
random letters a second, so that decoders have work.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bench.peers import torchscript
from bench.peers.shapes import CHUNK, FRAMES, RATE, TOKENS


class Recogniser(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.frame, self.cell = nn.Linear(CHUNK // FRAMES, width), nn.LSTM(width, width, layers, batch_first=True)
        self.out = nn.Linear(width, len(TOKENS))
        with torch.no_grad():
            self.frame.weight.mul_(20)
            self.out.weight.mul_(12)
            self.out.bias[-1] += 4

    def forward(self, signal: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``signal`` [B, 2400, 1] int32, ``state`` [B, 2 * layers * width] float16."""
        frames = signal.to(torch.float32).reshape(-1, FRAMES, CHUNK // FRAMES) / 32768
        old = state.to(torch.float32).reshape(-1, 2, self.layers, self.width).permute(1, 2, 0, 3)
        heard = torch.tanh(self.frame(frames))
        y, (h, c) = self.cell(heard, (old[0].contiguous(), old[1].contiguous()))
        new = torch.stack([h, c]).permute(2, 0, 1, 3).flatten(1)
        return self.out(y + heard).log_softmax(-1), new.to(torch.float16)


def write(folder: Path, width: int = 512, layers: int = 4) -> Path:
    """Write ``model.onnx`` and ``tokens.txt`` to a new ``folder``; returns it."""
    import onnx

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    size = 2 * layers * width
    given = {
        "signal": torch.zeros(1, CHUNK, 1, dtype=torch.int32),
        "state": torch.zeros(1, size, dtype=torch.float16),
    }
    torchscript.write(Recogniser(width, layers), folder / "model.onnx", given, ["logprobs", "state_next"], {})
    proto = onnx.load(folder / "model.onnx")
    said = {"model_type": "t-one", "frame_length_ms": "300", "state_dim": f"{size}", "sample_rate": f"{RATE}"}
    onnx.helper.set_model_props(proto, said)
    onnx.save(proto, folder / "model.onnx")
    lines = (f"{'' if token == ' ' else token} {number}\n" for number, token in enumerate(TOKENS))
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    return folder
