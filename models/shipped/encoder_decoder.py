"""A sequence-to-sequence model in one stream: it reads a phrase into a bounded memory, then attends to it.

Sutskever et al. 2014, Bahdanau et al. 2015; the attention is Luong's, so that training needs no loop. Whether a stream
is reading or writing is part of its state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State, Streaming, inner, outer
from models.layers.config import Config
from models.layers.memory import RingMemory, gru_step
from models.layers.sampling import log_prob

#: Codes of signs: no output, end of the phrase. The other signs follow.
NOTHING, END = 0, 1


@dataclass(frozen=True)
class EncoderDecoderConfig(Config):
    """``words``: number of words, whose codes are 1 to ``words``. ``signs``: number of sign codes, with NOTHING and
    END. ``slots``: number of words that the memory holds."""

    words: int
    signs: int
    hidden: int = 88
    embedding: int = 24
    slots: int = 24


class EncoderDecoder(Streaming):
    """Rows (word, end) [B, T, 2] int32 -> ``signs`` [B, T] int64, ``log_prob`` [B, T], ``attention`` [B, T, M].

    A word that is not 0 is read; ``end`` is 1 at the end of the phrase. From the next row on, each row without a word
    outputs one sign, until END, which empties the memory; other rows output NOTHING. A word before END starts a new
    phrase. ``attention``: weight of each slot for the sign, zeros for NOTHING.
    """

    receptive_field = None

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        hidden, embedding = config.hidden, config.embedding
        self.word = nn.Embedding(config.words + 1, embedding)
        self.sign = nn.Embedding(config.signs, embedding)
        self.encoder = nn.GRU(embedding, hidden, batch_first=True)
        self.decoder = nn.GRU(embedding, hidden, batch_first=True)
        self.bridge = nn.Linear(hidden, hidden)
        self.memory = RingMemory(config.slots, hidden)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, config.signs)

    def limits(self) -> list[tuple[int, int]]:
        """(lowest, highest) code of each input column."""
        return [(0, self.config.words), (0, 1)]

    def initial_state(self, batch: int) -> State:
        hidden = self.config.hidden
        own = {"encoder": torch.zeros(batch, hidden), "decoder": torch.zeros(batch, hidden)}
        own |= {name: torch.zeros(batch, 1, dtype=torch.int64) for name in ("sign", "saying")}
        return own | outer(self.memory.initial_state(batch), "memory")

    def teach(self, words: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: phrases [B, S] and their signs [B, U], both padded with 0 at the end -> logits
        [B, U, signs] of each sign given those before it, and attention weights [B, U, S]."""
        filled = words > 0
        slots, _ = self.encoder(self.word(words))
        last = slots.gather(1, (filled.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, slots.shape[2]))  # [B, 1, H]
        start = self.bridge(last).tanh().transpose(0, 1).contiguous()
        h, _ = self.decoder(self.sign(F.pad(signs, (1, -1))), start)
        context, weights = self.memory.attend(h, slots, filled)
        return self._say(h, context), weights

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        x = x.long().minimum(torch.tensor([high for _, high in self.limits()])).clamp(min=0)
        outputs = []
        for t in range(x.shape[1]):
            row, state = self._step(x[:, t, :1], x[:, t, 1:] > 0, state)
            outputs.append(row)
        return {name: torch.stack([row[name] for row in outputs], dim=1) for name in outputs[0]}, state

    def _step(self, word: Tensor, end: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One row: ``word`` [B, 1] int64, ``end`` [B, 1] bool."""
        memory = inner(state, "memory")
        reads = word > 0
        speaks = (state["saying"] > 0) & ~reads
        restarts = (state["saying"] > 0) & reads
        # reading
        memory = self.memory.clear(restarts, memory)
        encoder = torch.where(restarts, 0.0, state["encoder"])
        encoder = torch.where(reads, gru_step(self.encoder, self.word(word[:, 0]), encoder), encoder)
        memory = self.memory.write(encoder, reads, memory)
        starts = end & ~speaks & (memory["count"] > 0)
        # saying
        decoder = gru_step(self.decoder, self.sign(state["sign"][:, 0]), state["decoder"])
        context, weights = self.memory.read(decoder, memory)
        logits = self._say(decoder, context)
        sign = torch.where(speaks, logits[:, 1:].argmax(1, keepdim=True) + 1, NOTHING)  # never NOTHING
        nats = log_prob(logits[:, None], sign)[:, 0]
        over = speaks & (sign == END)
        new = {
            "encoder": torch.where(over, 0.0, encoder),
            "decoder": torch.where(starts, self.bridge(encoder).tanh(), torch.where(speaks & ~over, decoder, 0.0)),
            "sign": torch.where(over, NOTHING, sign),
            "saying": (starts | (speaks & ~over)).long(),
            **outer(self.memory.clear(over, memory), "memory"),
        }
        outputs = {
            "signs": sign[:, 0],
            "log_prob": torch.where(speaks[:, 0], nats, 0.0),
            "attention": torch.where(speaks, weights, 0.0),
        }
        return outputs, new

    def _say(self, h: Tensor, context: Tensor) -> Tensor:
        return self.head(self.mix(torch.cat([h, context], dim=-1)).tanh())
