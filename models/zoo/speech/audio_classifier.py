"""A small classifier of sound: log-mel, running normalisation, two strided convolutions, a GRU, label probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import Chain, LogMel, RecurrentStack, RunningNorm, State, Streaming, Subsample, inner, outer
from models.layers.config import Config


@dataclass(frozen=True)
class AudioClassifierConfig(Config):
    """``labels``: number of labels; the output is a sigmoid for one, a softmax for several."""

    labels: int
    sample_rate: int = 16000
    bands: int = 24
    size: int = 200  # points of the front end's transform, whose basis is most of a small file
    channels: int = 40
    hidden: int = 40
    layers: int = 1
    cell: str = "gru"


class AudioClassifier(Streaming):
    """``forward(pcm int16 [B, N], state) -> ({"scores": [B, N / hop, labels]}, state)``; a step is 40 ms."""

    receptive_field = None

    def __init__(self, config: AudioClassifierConfig) -> None:
        super().__init__()
        self.config = c = config
        front = LogMel(c.sample_rate, c.bands, size=c.size)
        self.front = Chain({"mel": front, "norm": RunningNorm(c.bands)})
        self.encoder = Chain(
            {
                "halve": Subsample(c.bands, c.channels, 5, 2),
                "quarter": Subsample(c.channels, c.channels, 5, 2),
                "recurrent": RecurrentStack(c.cell, c.channels, c.hidden, c.layers),
            }
        )
        self.head = nn.Linear(c.hidden, c.labels)
        self.hop = self.stride = self.front.stride * self.encoder.stride

    def initial_state(self, batch: int) -> State:
        return outer(self.front.initial_state(batch), "front") | outer(self.encoder.initial_state(batch), "encoder")

    def logits(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits [B, N / hop, labels], and the state. The front end has no gradient."""
        with torch.no_grad():
            features, front = self.front(pcm, inner(state, "front"))
        hidden, encoder = self.encoder(features, inner(state, "encoder"))
        return self.head(hidden), outer(front, "front") | outer(encoder, "encoder")

    def forward(self, pcm: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        logits, state = self.logits(pcm, state)
        return {"scores": logits.sigmoid() if self.config.labels == 1 else logits.softmax(dim=2)}, state

    @torch.no_grad()
    def normalise(self, pcm: Tensor) -> None:
        """Set the normaliser's constants from the energies of ``pcm`` [B, N] int16."""
        mel = self.front.layers["mel"]
        energies, _ = mel(pcm, mel.initial_state(len(pcm)))
        self.front.layers["norm"].set_constants(energies)
