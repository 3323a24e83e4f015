"""Two small streaming models in plain PyTorch, with the contract of ``models/``: state in, state out, batch on axis 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HOP = 160
VOCABULARY = 5

State = dict[str, Tensor]


class Front(nn.Module):
    """int16 [B, N] -> features [B, T, F]: a fixed window of 2 hops with its overlap as state, and a running mean."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.basis = nn.Conv1d(1, features, 2 * HOP, stride=HOP, bias=False)

    def initial_state(self, batch: int) -> State:
        return {"front.overlap": torch.zeros(batch, HOP), "front.count": torch.zeros(batch, 1)}

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        samples = torch.cat([state["front.overlap"], pcm.float() / 32768.0], dim=1)  # [B, HOP + N]
        energy = self.basis(samples[:, None]).transpose(1, 2).square()  # [B, T, F]
        features = torch.log1p(energy * 1000.0)
        count = (state["front.count"] + features.shape[1]).clamp(max=1000.0)
        return features, {"front.overlap": samples[:, -HOP:], "front.count": count}


class SmallLSTM(nn.Module):
    def __init__(self, hidden: int = 24, layers: int = 2) -> None:
        super().__init__()
        self.front = Front(16)
        self.lstm = nn.LSTM(16, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, VOCABULARY)

    def initial_state(self, batch: int) -> State:
        shape = (batch, self.lstm.num_layers, self.lstm.hidden_size)
        # c before h: sorted by name they are swapped against PyTorch's own order, so pairing by position would show
        return {**self.front.initial_state(batch), "lstm.c": torch.zeros(shape), "lstm.h": torch.zeros(shape)}

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        x, front = self.front(pcm, state)
        h, c = (state[name].transpose(0, 1).contiguous() for name in ("lstm.h", "lstm.c"))
        x, (h, c) = self.lstm(x, (h, c))
        log_probs = self.head(x).log_softmax(-1)
        return log_probs, {"lstm.h": h.transpose(0, 1), "lstm.c": c.transpose(0, 1), **front}


class SmallWaveNet(nn.Module):
    def __init__(self, channels: int = 24, dilations: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.front = Front(16)
        self.enter = nn.Conv1d(16, channels, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=d) for d in dilations)
        self.mix = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 1) for _ in dilations)
        self.head = nn.Conv1d(channels, VOCABULARY, 1)

    def initial_state(self, batch: int) -> State:
        past = {
            f"layers.{i}.past": torch.zeros(batch, conv.in_channels, conv.dilation[0])
            for i, conv in enumerate(self.dilated)
        }
        return {**past, **self.front.initial_state(batch)}

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        features, new = self.front(pcm, state)
        x = self.enter(features.transpose(1, 2))
        total = torch.zeros_like(x)
        for i, (dilated, mix) in enumerate(zip(self.dilated, self.mix, strict=True)):
            whole = torch.cat([state[f"layers.{i}.past"], x], dim=2)
            new[f"layers.{i}.past"] = whole[:, :, -dilated.dilation[0] :]
            a, b = dilated(whole).chunk(2, dim=1)
            residual, skip = mix(a.tanh() * b.sigmoid()).chunk(2, dim=1)
            x, total = x + residual, total + skip
        return self.head(total.relu()).transpose(1, 2).log_softmax(-1), new
