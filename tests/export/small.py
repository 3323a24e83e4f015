"""A small streaming model in plain PyTorch that shares no code with ``models/``: state in, state out, batch first."""

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


#: What a checkpoint of it would say.
INFO = {
    "name": "small",
    "task": "transcribe",
    "sample_rate": 16000,
    "hop": HOP,
    "tokens": ["<blank>", "A", "B", "C", "D"],
    "units": "characters",
    "licence": "Apache-2.0",
    "data": "none",
    "scores": {"dev": {"wer": 0.5}},
}
