"""Building blocks of deep stacks: residual connections and position-wise feed-forward layers."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.base import State, Streaming


class Residual(Streaming):
    """``x + layer(layer_norm(x))`` [B, T, C], with the layer's state. The sum carries the input to the last layer of a
    deep stack, and the gradient to the first (He et al. 2016, arXiv 1512.03385; norm in front: Xiong et al. 2020)."""

    def __init__(self, layer: Streaming, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.layer, self.drop = nn.LayerNorm(channels), layer, nn.Dropout(dropout)
        self.receptive_field, self.latency = layer.receptive_field, layer.latency

    def initial_state(self, batch: int) -> State:
        return self.layer.initial_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.layer(self.norm(x), state)
        return x + self.drop(y), state


class FeedForward(Streaming):
    """[B, T, C] -> [B, T, C]: two matrices with GELU between, applied to each step separately."""

    def __init__(self, channels: int, factor: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, factor * channels), nn.GELU(approximate="tanh"), nn.Linear(factor * channels, channels)
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.layers(x), {}
