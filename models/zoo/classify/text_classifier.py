"""A classifier of bytes: an embedding, a GRU stack, and the probability of each label after each byte (many-to-one)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import RecurrentStack, State, Streaming, inner, outer
from models.layers.config import Config

#: The bytes that have a code; capitals have that of the small letter, and all other bytes share one code.
KNOWN = b"\n abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()"


@dataclass(frozen=True)
class TextClassifierConfig(Config):
    labels: int
    embedding: int = 24
    hidden: int = 72
    layers: int = 2
    cell: str = "gru"
    dropout: float = 0.1


class TextClassifierNetwork(Streaming):
    """``forward(text uint8 [B, T], state) -> ({"scores": [B, T, labels]}, state)``: a step is a byte of UTF-8."""

    receptive_field = None

    def __init__(self, config: TextClassifierConfig) -> None:
        super().__init__()
        self.config = c = config
        self.table: Tensor
        self.register_buffer("table", folded(), persistent=False)
        self.embedding = nn.Embedding(len(KNOWN) + 1, c.embedding)
        self.recurrent = RecurrentStack(c.cell, c.embedding, c.hidden, c.layers, c.dropout)
        self.head = nn.Linear(c.hidden, c.labels)

    def initial_state(self, batch: int) -> State:
        return outer(self.recurrent.initial_state(batch), "recurrent")

    def logits(self, text: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits [B, T, labels], and the state."""
        hidden, part = self.recurrent(self.embedding(self.table[text.long()]), inner(state, "recurrent"))
        return self.head(hidden), outer(part, "recurrent")

    def forward(self, text: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        logits, state = self.logits(text, state)
        return {"scores": logits.softmax(dim=2)}, state


def folded() -> Tensor:
    """The code of each byte, int64 [256]."""
    return torch.tensor([1 + KNOWN.find(bytes([code]).lower()) for code in range(256)])
