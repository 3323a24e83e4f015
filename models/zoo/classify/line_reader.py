"""A reader of image columns: a strided convolution, one of pen strokes, LSTMs, CTC (Graves et al. 2009)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.layers import Chain, RecurrentStack, State, Streaming, Subsample, inner, outer
from models.layers.config import Config


@dataclass(frozen=True)
class LineReaderConfig(Config):
    """``height``: grey values of a column."""

    tokens: int
    height: int = 32
    channels: int = 64
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.1


class LineReaderNetwork(Streaming):
    """``forward(ink float32 [B, N, height], state) -> (log_probs [B, N / 2, tokens], state)``: a step is two columns.

    It has no look-ahead: CTC allows it to output a letter when it has seen enough of it.
    """

    receptive_field = None

    def __init__(self, config: LineReaderConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = Chain(
            {
                "columns": Subsample(c.height, c.channels, 8, 2),
                "strokes": Subsample(c.channels, c.channels, 5, 1),
                "recurrent": RecurrentStack("lstm", c.channels, c.hidden, c.layers, c.dropout),
            }
        )
        self.head = nn.Linear(c.hidden, c.tokens)
        self.stride = self.encoder.stride

    def initial_state(self, batch: int) -> State:
        return outer(self.encoder.initial_state(batch), "encoder")

    def forward(self, ink: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, part = self.encoder(ink, inner(state, "encoder"))
        return self.head(hidden).log_softmax(dim=2), outer(part, "encoder")
