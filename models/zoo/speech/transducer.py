"""A recurrent transducer (Graves 2012, arXiv 1211.3711) in one stream: encoder, predictor, joiner, and the search.

The encoder reads the sound, the predictor the tokens so far; from both the joiner predicts the next token, or the
blank, which advances to the next frame. The greedy search is inside the graph: in each frame the joiner runs
``symbols`` times, and the predictor advances after a token. After a blank the joiner has the same inputs and so the
same output, so no branch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.layers import Recurrent, State, Streaming, inner, outer
from models.layers.config import Config
from models.zoo.speech.listener import Ear, ListenerConfig


@dataclass(frozen=True)
class TransducerConfig(Config):
    """``ear``: the encoder. ``symbols``: the most tokens of a frame. ``memory``: width of the predictor."""

    ear: ListenerConfig
    symbols: int = 2
    embedding: int = 16
    memory: int = 32
    joint: int = 56

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "ear": ListenerConfig.from_dict(values["ear"])})


class Transducer(Streaming):
    """``forward(pcm int16 [B, N], state) -> (log_probs [B, N / hop, symbols, V], state)``.

    The greedy search takes the most probable token of each row. Unlike with CTC, a repeated token is two tokens. State:
    the encoder's, and the predictor's, which is zero before the first token.
    """

    receptive_field = None

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.ear = Ear(c.ear)
        self.hear = nn.Linear(self.ear.width, c.joint)
        self.embed = nn.Embedding(c.ear.tokens, c.embedding)
        self.predictor = Recurrent("gru", c.embedding, c.memory)
        self.expect = nn.Linear(c.memory, c.joint)
        self.join = nn.Linear(c.joint, c.ear.tokens)
        self.hop = self.stride = self.ear.stride
        self.latency = self.ear.latency
        self.sample_rate = c.ear.sample_rate

    def initial_state(self, batch: int) -> State:
        return outer(self.ear.initial_state(batch), "ear") | outer(self.predictor.initial_state(batch), "predictor")

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, ear = self.ear(pcm, inner(state, "ear"))
        heard, memory, out = self.hear(hidden), inner(state, "predictor"), []
        expected = self.expect(memory["h"][:, 0])
        for t in range(heard.shape[1]):
            rows = []
            for _ in range(self.config.symbols):
                logits = self.join((heard[:, t] + expected).tanh())
                rows.append(logits.log_softmax(dim=1))
                memory, expected = self.write(logits.argmax(dim=1), memory)
            out.append(torch.stack(rows, 1))
        return torch.stack(out, 1), outer(ear, "ear") | outer(memory, "predictor")

    def write(self, token: Tensor, memory: State) -> tuple[State, Tensor]:
        """The predictor's state after the tokens [B], unchanged for the blank, and its output [B, joint]."""
        _, after = self.predictor(self.embed(token)[:, None], memory)
        wrote = (token != 0)[:, None, None]
        memory = {name: torch.where(wrote, after[name], value) for name, value in memory.items()}
        return memory, self.expect(memory["h"][:, 0])

    def lattice(self, pcm: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """For training: log-probabilities [B, T, U + 1, V] after the first u of ``symbols`` [B, U], and the encoder's
        output [B, T, H]."""
        hidden, _ = self.ear(pcm, self.ear.initial_state(len(pcm)))
        start = self.predictor.initial_state(len(pcm))
        after, _ = self.predictor(self.embed(symbols), start)
        expected = self.expect(torch.cat([start["h"], after], 1))
        return self.join((self.hear(hidden)[:, :, None] + expected[:, None]).tanh()).log_softmax(dim=3), hidden
