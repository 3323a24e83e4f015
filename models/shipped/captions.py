"""A network that reads words and predicts the punctuation after each and its capitals, a few words later.

A word's embedding is the sum of two rows of a hashed table and the mean of its hashed letter trigrams (Bloom
embeddings, Serra and Karatzoglou 2017; Bojanowski et al. 2017): there is no vocabulary, so no word is unknown. A
recurrent network reads the embeddings; its head sees the hidden state and the embeddings of the current word, some
before it, and those of the look-ahead after it. The look-ahead is a delay, and the last words are state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import RecurrentStack, State, Streaming, inner, outer
from models.layers.config import Config
from streamer.tasks.marks import CASES, LETTERS, MARKS, WIDTH

#: Largest multiplier of a hash: products of codes and sums over a word stay far below 2^63.
LARGE = 2**31
#: Number of rows before the word that the head sees.
BEFORE = 2


@dataclass(frozen=True)
class CaptionsConfig(Config):
    """``ahead``: rows of look-ahead. ``words`` and ``trigrams``: rows of the two tables, primes; ``width`` and
    ``letters``: their columns. ``mixed``: width of the head's hidden layer. ``packed``: tables of int8."""

    ahead: int = 3
    words: int = 10007
    width: int = 40
    trigrams: int = 4093
    letters: int = 16
    hidden: int = 112
    layers: int = 1
    mixed: int = 96
    dropout: float = 0.1
    packed: bool = False


class CaptionTable(nn.Module):
    """A table of embeddings in float32; ``packed``: stored as int8, with a scale for each column."""

    def __init__(self, rows: int, width: int, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        start = torch.zeros(rows, width, dtype=torch.int8) if packed else 0.3 * torch.randn(rows, width)
        self.rows = nn.Parameter(start, requires_grad=not packed)
        if packed:
            self.scale = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        """Row numbers, int64 [...] -> rows [..., width] float32."""
        if self.packed:
            return self.rows[index].float() * self.scale
        return F.embedding(index, self.rows)

    @torch.no_grad()
    def pack(self, other: CaptionTable) -> None:
        """Copy the rows of ``other``, rounded to int8."""
        self.scale.copy_(other.rows.abs().amax(0).clamp(min=1e-6) / 127)
        self.rows.copy_((other.rows / self.scale).round().to(torch.int8))


class Captions(Streaming):
    """Rows [B, T, letters] int32, the codes of a word's letters or zeros for a pause -> ``letters`` [B, T, letters]
    int32, the row of ``ahead`` rows ago; ``marks`` [B, T, 4] and ``cases`` [B, T, 3], probabilities of the mark after
    that word and of its case."""

    receptive_field = None

    def __init__(self, config: CaptionsConfig) -> None:
        super().__init__()
        self.config = c = config
        self.latency = c.ahead
        generator = torch.Generator().manual_seed(20)
        self.register_buffer("salts", torch.randint(1, LARGE, (2, WIDTH), generator=generator), persistent=False)
        self.register_buffer("thirds", torch.randint(1, LARGE, (3,), generator=generator), persistent=False)
        self.words = CaptionTable(c.words, c.width, c.packed)
        self.trigrams = CaptionTable(c.trigrams, c.letters, c.packed)
        self.features = c.width + c.letters
        self.drop = nn.Dropout(c.dropout)
        self.recurrent = RecurrentStack("gru", self.features, c.hidden, c.layers, c.dropout)
        self.near = nn.Linear((BEFORE + 1 + c.ahead) * self.features, c.mixed)
        self.far = nn.Linear(c.hidden, c.mixed)
        self.head = nn.Linear(c.mixed, len(MARKS) + len(CASES))

    def limits(self) -> list[tuple[int, int]]:
        """(lowest, highest) code of each input column."""
        return [(0, len(LETTERS) + 1)] * WIDTH

    def initial_state(self, batch: int) -> State:
        rows = torch.zeros(batch, BEFORE + self.config.ahead, WIDTH, dtype=torch.int32)
        return {"rows": rows, **outer(self.recurrent.initial_state(batch), "recurrent")}

    def embed(self, codes: Tensor) -> Tensor:
        """int64 [B, T, letters] -> [B, T, features]; zeros for a pause."""
        said = (codes > 0)[..., None]  # [B, T, L, 1]
        hashes = [(codes * salt).sum(-1) % self.config.words for salt in self.salts]
        word = self.words(torch.stack(hashes)).sum(0)  # one look-up, so that the graph holds the table once
        edge = torch.zeros_like(codes[..., :1])
        triples = zip((torch.cat([edge, codes[..., :-1]], -1), codes, torch.cat([codes[..., 1:], edge], -1)),
                      self.thirds, strict=True)  # fmt: skip
        hashed = torch.stack([part * factor for part, factor in triples]).sum(0) % self.config.trigrams
        letters = (self.trigrams(hashed) * said).sum(2) / said.sum(2).clamp(min=1)
        return torch.cat([word, letters], -1) * said[..., 0, :]

    def logits(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits [B, T, marks + cases] of the words of ``ahead`` rows ago, and the new state."""
        steps = x.shape[1]
        whole = torch.cat([state["rows"], x], dim=1)
        seen = self.drop(self.embed(whole.long()))
        hidden, part = self.recurrent(seen[:, -steps:], inner(state, "recurrent"))
        taps = [seen[:, i : i + steps] for i in range(BEFORE + 1 + self.config.ahead)]
        mixed = (self.near(torch.cat(taps, -1)) + self.far(hidden)).relu()
        return self.head(self.drop(mixed)), {"rows": whole[:, steps:], **outer(part, "recurrent")}

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        x = x.clamp(0, len(LETTERS) + 1)
        logits, new = self.logits(x, state)
        marks, cases = logits.split([len(MARKS), len(CASES)], -1)
        late = torch.cat([state["rows"], x], dim=1)[:, BEFORE : BEFORE + x.shape[1]]
        return {"letters": late, "marks": marks.softmax(-1), "cases": cases.softmax(-1)}, new

    def pack(self) -> Captions:
        """A copy with tables of int8, a quarter of the size."""
        other = Captions(CaptionsConfig(**{**self.config.to_dict(), "packed": True}))
        fitting = {name: value for name, value in self.state_dict().items() if not name.endswith(".rows")}
        other.load_state_dict(fitting, strict=False)
        other.words.pack(self.words)
        other.trigrams.pack(self.trigrams)
        return other.eval()
