"""Modules as people write them, right and wrong, for the exporter to find its way in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SequenceFirst(nn.Module):
    """PyTorch's default layout: x [time, batch, 4], states [1, batch, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8)

    def forward(self, x, state):
        return self.lstm(x, state)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 8)

    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return h, (h, c)


class Several(nn.Module):
    """Two inputs, a condition, outputs by name of which one is a chunk's."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)
        self.voice = nn.Linear(3, 4)

    def forward(self, x, wind, speaker, h):
        y, h = self.gru(torch.cat([x, wind], -1) + self.voice(speaker)[:, None], h)
        return {"mean": y, "last": y[:, -1]}, h


class OneStream(nn.Module):
    """x [4], h [8]: no batch at all."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 8)

    def forward(self, x, h):
        h = self.cell(x.view(1, 4), h.view(1, 8)).view(8)
        return h[:3], h


class Sound(nn.Module):
    """pcm [batch, samples] in [-1, 1], 160 samples a step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(160, 16, batch_first=True)

    def forward(self, pcm, h):
        return self.gru(pcm.unflatten(1, (-1, 160)), h)


class Stars(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.GRUCell(4, 8), nn.GRUCell(8, 8)

    def forward(self, x, *states):
        a = self.a(x, states[0])
        b = self.b(a, states[1])
        return 2 * b, a, b


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(4, 4, batch_first=True) for _ in range(2))

    def forward(self, x, states):
        new = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, state)
            new.append(state)
        return x, new


class Counting(nn.Module):
    """An integer state that starts at 3."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, x, position):
        return x + self.embedding(position % 10)[:, None], position + 1


class Growing(nn.Module):
    def forward(self, x, cache):
        cache = torch.cat([cache, x], dim=1)
        return cache.mean(1, keepdim=True), cache


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)
        self.h: Any = None

    def forward(self, x):
        y, self.h = self.gru(x, self.h)
        return y


class Both(nn.Module):
    """Needs the future."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.gru(x)[0]


class PaddedConv(nn.Module):
    """Forgets what is before a chunk: the convolution pads with zeros where the past was."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.gru = nn.GRU(4, 8, batch_first=True)

    def forward(self, x, h=None):
        return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2), h)


class Random(nn.Module):
    def forward(self, x, h):
        return nn.functional.dropout(x), h + x.sum()


class Deciding(nn.Module):
    def forward(self, x, h):
        if x.sum() > 0:
            x = -x
        return x, h + x


class Tokens(nn.Module):
    """``ids`` [batch, time] that a one-hot takes: nothing says how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(7, 8, batch_first=True)

    def forward(self, ids, h):
        return self.gru(nn.functional.one_hot(ids, 7).float(), h)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)
